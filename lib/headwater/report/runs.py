"""The report's data from MLflow: the champion, the challenger, and the curves of their training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headwater import local
from headwater.config import Config
from headwater.errors import HeadwaterError

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Runs:
    """``curves``: model version → metric → (epoch, value) pairs. ``problem`` says why there is nothing to show."""

    champion: int | None = None
    challenger: int | None = None
    curves: dict[int, dict[str, Curve]] = field(default_factory=dict)
    problem: str = ""

    def role(self, version: int) -> str:
        return "champion" if version == self.champion else "challenger" if version == self.challenger else ""


def read_runs(config: Config) -> Runs:
    """Aliases and curves. A store that does not exist yet, or does not answer, gives a sentence instead of an error."""
    store = local.sqlite_file(config.tracking_uri)
    if store is not None and not store.exists():
        return Runs(problem="No model has been trained yet; jobs/train_model.py trains one.")
    try:
        from headwater.tracking.registry import CHALLENGER, CHAMPION, Registry

        registry = Registry(config)
        champion, challenger = registry.alias(CHAMPION), registry.alias(CHALLENGER)
        versions = {version for version in (champion, challenger) if version is not None}
        curves: dict[int, dict[str, Curve]] = {version: {**registry.history(version)} for version in versions}
    except HeadwaterError as error:
        return Runs(problem=f"Training curves cannot be shown: {error}.")
    if not curves:
        return Runs(problem="No model has been trained yet; jobs/train_model.py trains one.")
    return Runs(champion, challenger, curves)
