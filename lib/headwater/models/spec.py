"""The shape of a model: enough to rebuild it around stored weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a model. ``n_items`` is the largest item index that it knows; index 0 is padding.

    ``input_scale``: the factor of item vectors in the encoder's input; ``input_dropout``: dropout on that input, None for the
    value of ``dropout``. ``feature_cells``: the number of non-zero cells of items × ``feature_buckets``; without buckets there
    are no item features. ``context``: the parts of an event that the model reads besides its item (``models.context``).
    """

    kind: str
    n_items: int
    max_length: int
    dim: int = 64
    layers: int = 2
    heads: int = 2
    feed_forward: int = 4
    dropout: float = 0.2
    input_scale: float = 1.0
    input_dropout: float | None = None
    mask_probability: float = 0.2
    context: tuple[str, ...] = ("event_type",)
    feature_buckets: int = 0
    feature_cells: int = 0

    def __post_init__(self) -> None:
        assert self.n_items >= 1, "n_items must be at least 1"
        assert self.dim % self.heads == 0, "dim must be a multiple of heads"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
