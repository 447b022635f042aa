"""The model registry: versions, the aliases champion, challenger and previous_champion, and verified downloads."""

from __future__ import annotations

import shutil
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater import local
from headwater.config import Config
from headwater.errors import ModelError
from headwater.tracking.client import connect, mlflow_errors, transfers
from headwater.training import artifact
from headwater.work import work_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"
PARENT, FEEDBACK_UNTIL = "parent_version", "feedback_until"
"""Tags of a fine-tuned version: the version it began as, and the collection time of the newest feedback that it counted, the
held-out part included."""
TRAINING = "training"
"""Tag of a version: the id of the training that made it."""
MAX_METRICS = 1_000
"""How many metrics MLflow takes at once."""


class Registry:
    """Versions of ``config.mlflow.model_name``. Every method may raise TrackingError."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.mlflow.model_name
        self.uri = config.tracking_uri

    @cached_property
    def client(self) -> MlflowClient:
        return connect(self.config)

    def alias(self, alias: str) -> int | None:
        """The version that an alias points to, or None."""
        client = self.client
        with mlflow_errors(self.uri):
            found = client.search_registered_models(f"name = '{self.name}'")
            versions = dict(found[0].aliases) if found else {}
        return int(versions[alias]) if alias in versions else None

    def need(self, alias: str) -> int:
        """The same; raises ModelError if there is none."""
        version = self.alias(alias)
        if version is None and alias == CHAMPION and self.alias(PREVIOUS) is not None:
            raise ModelError(f"model {self.name} no longer has a champion; run jobs/promote_model.py --rollback")
        if version is None:
            raise ModelError(f"model {self.name} has no {alias} yet; run jobs/train_model.py first")
        return version

    def need_champion(self) -> int:
        return self.need(CHAMPION)

    def set_alias(self, alias: str, version: int) -> None:
        with mlflow_errors(self.uri):
            self.client.set_registered_model_alias(self.name, alias, str(version))

    def offer(self, version: int) -> None:
        """Make a version the challenger unless a newer one is, and the champion if there is none."""
        if self.alias(CHAMPION) is None:
            self.set_alias(CHAMPION, version)
        if version > (self.alias(CHALLENGER) or 0):
            self.set_alias(CHALLENGER, version)

    def set_tag(self, version: int, tag: str, value: str) -> None:
        with mlflow_errors(self.uri):
            self.client.set_model_version_tag(self.name, str(version), tag, value)

    def version(self, version: int) -> ModelVersion:
        """The registry's record of a version; raises ModelError if there is no such version."""
        from mlflow.exceptions import MlflowException

        client = self.client
        with mlflow_errors(self.uri):
            try:
                return client.get_model_version(self.name, str(version))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise ModelError(f"model {self.name} has no version {version}") from None
                raise

    def tuned_from(self, parent: int) -> dict[int, dict[str, str]]:
        """The versions that were fine-tuned from ``parent``, ascending, with their tags."""
        return self._tagged(PARENT, str(parent))

    def made_by(self, training: str) -> int | None:
        """The version that a training has made, by its id; None if there is none."""
        return next(iter(self._tagged(TRAINING, training)), None)

    def _tagged(self, tag: str, value: str) -> dict[int, dict[str, str]]:
        with mlflow_errors(self.uri):
            found = self.client.search_model_versions(f"name = '{self.name}' AND tags.{tag} = '{value}'")
        return {int(each.version): dict(each.tags) for each in sorted(found, key=lambda each: int(each.version))}

    def download(self, version: int) -> Path:
        """The verified model folder of a version, downloaded once and kept in the work folder.

        The folder's name includes the run id, because version 3 in another store is another model.
        """
        known = self.version(version)
        folder = work_folder(self.config) / "models" / self.name / f"{version}-{str(known.run_id)[:8]}"
        if folder.is_dir():
            artifact.verify(folder)
            folder.touch()  # in use, see work.prune
            return folder
        temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        try:
            with mlflow_errors(self.uri):
                self._fetch(known, temporary)
            artifact.verify(temporary / "model")
            if not folder.is_dir():
                (temporary / "model").rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def facts(self, version: int) -> dict[str, Any]:
        """The facts recorded by a version's training: table versions, cuts, seed, code revision, item range."""
        return artifact.facts(self.download(version))

    def history(self, version: int) -> dict[str, list[tuple[int, float]]]:
        """Curves of a version's run: metric → (epoch, value) pairs."""
        run_id = str(self.version(version).run_id)
        with mlflow_errors(self.uri):
            metrics = self.client.get_run(run_id).data.metrics
            return {name: [(m.step, m.value) for m in self.client.get_metric_history(run_id, name)] for name in metrics}

    def log_metrics(self, version: int, metrics: dict[str, float]) -> None:
        """Add metrics to a version's run."""
        from mlflow.entities import Metric

        run_id, now = str(self.version(version).run_id), int(time.time() * 1000)
        made = [Metric(name, value, now, 0) for name, value in metrics.items()]
        with mlflow_errors(self.uri):
            for start in range(0, len(made), MAX_METRICS):
                self.client.log_batch(run_id, metrics=made[start : start + MAX_METRICS])

    def _fetch(self, version: ModelVersion, into: Path) -> None:
        source = local.folder(version.source or "")
        if source is not None:
            shutil.copytree(source, into / "model")
        else:
            with transfers():
                self.client.download_artifacts(str(version.run_id), "model", str(into))
