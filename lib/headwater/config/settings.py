"""All sections of the configuration except ``ingest`` (``config.sources``) and ``topn`` (``config.topn``), and ``Config``, which
holds them all."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from headwater import local
from headwater.config.sections import Days, Hours, Positive, Section
from headwater.config.sources import Ingest
from headwater.config.topn import Topn
from headwater.encoders import ENCODERS
from headwater.errors import UsageError
from headwater.schemas import EventType

Fraction = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TargetType = Literal["view", "search", "click", "add_to_cart", "purchase", "rating"]
Baseline = Literal["popularity", "recent_popularity", "item_transitions", "own_items"]
BlendPart = Literal["transitions", "ease", "als", "repeats", "recency"]
SOFTMAX_MAX_ITEMS = 20_000
"""Up to this many items, ``train.loss.kind: auto`` is the softmax over the whole catalogue."""
SPARSE_MIN_ITEMS = 200_000
"""From this many items on, ``train.sparse_items: auto`` updates only the items that a step read."""


class Paths(Section):
    landing: str = "data/landing"
    warehouse: str = "warehouse"
    work: str = ""


class Mlflow(Section):
    tracking_uri: str = ""
    model_name: str = Field(default="headwater", pattern=r"^[A-Za-z0-9_\-][A-Za-z0-9_.\- ]*$")
    experiment: str = "headwater"
    timeout_seconds: Positive = 20


class Sequence(Section):
    max_length: Positive = 50


class Model(Section):
    kind: str = "sasrec"
    max_length: Positive | None = None
    hybrid: bool = False
    blend: tuple[BlendPart, ...] = ("transitions", "ease", "repeats", "recency")
    dim: Positive = 64
    layers: Positive = 2
    heads: Positive = 2
    feed_forward: Positive = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    input_scale: Annotated[float, Field(gt=0)] | None = None
    input_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    mask_probability: Fraction = 0.2
    context: tuple[Literal["event_type", "gap", "value"], ...] = ("event_type", "gap")
    initial: Literal["cooccurrence", "random"] = "cooccurrence"
    features: tuple[Literal["category", "title", "text", "vector"], ...] = ()
    vectors: str = ""

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in ENCODERS:
            raise ValueError(f"{kind!r} is not one of {', '.join(ENCODERS)}")
        return kind

    @field_validator("context", "features", "blend")
    @classmethod
    def _names_once(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError("a name appears twice")
        return parts

    @model_validator(mode="after")
    def _blends_something(self) -> Model:
        if self.hybrid and not self.blend:
            raise ValueError("hybrid needs at least one part in blend; name some, or set hybrid to false")
        return self

    @model_validator(mode="after")
    def _brings_vectors(self) -> Model:
        if "vector" in self.features and not self.vectors:
            raise ValueError("features has 'vector', so vectors must name the Parquet file that holds them")
        if self.vectors and "vector" not in self.features:
            raise ValueError("vectors names a file that nothing reads; add 'vector' to features")
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads {self.heads}")
        return self


class Loss(Section):
    kind: Literal["auto", "softmax", "sampled_softmax", "gbce", "bpr"] = "auto"
    negatives: Positive = 1_024
    source: Literal["uniform", "popular", "batch"] = "uniform"
    correction: bool = True
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75

    def of_catalogue(self, n_items: int) -> Loss:
        """The loss for a catalogue of ``n_items``, where ``auto`` is ``softmax`` or ``sampled_softmax``."""
        if self.kind != "auto":
            return self
        return self.model_copy(update={"kind": "softmax" if n_items <= SOFTMAX_MAX_ITEMS else "sampled_softmax"})


class Targets(Section):
    """The weight of each event type as a prediction target; events of every type are part of the history regardless."""

    view: Weight = 1.0
    search: Weight = 1.0
    click: Weight = 1.0
    add_to_cart: Weight = 1.0
    purchase: Weight = 1.0
    rating: Weight = 1.0

    @model_validator(mode="after")
    def _one_counts(self) -> Targets:
        if not any(self.model_dump().values()):
            raise ValueError(
                "every weight is 0, so nothing would be learned; give at least one event type a weight above 0"
            )
        return self


class Train(Section):
    processes: Positive = 1
    use_gpu: bool | Literal["auto"] = "auto"
    local_mode: bool = True
    start_from: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    pretrain_epochs: Annotated[int, Field(ge=0)] = 0
    targets: Targets = Targets()
    epochs: Positive = 30
    batch_size: Positive = 128
    windows: Positive = 20
    refit: bool = True
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    accumulate: Positive = 1
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sparse_items: bool | Literal["auto"] = "auto"
    loss: Loss = Loss()
    patience: Positive = 5
    validation_users: Positive = 2_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    reader: Literal["petastorm", "pyarrow"] = "petastorm"
    timeout_seconds: Positive = 600
    mixed_precision: bool = True

    @model_validator(mode="after")
    def _leaves_items_alone(self) -> Train:
        if self.sparse_items is True and self.loss.kind in ("auto", "softmax"):
            raise ValueError("sparse_items needs a sampled loss.kind; softmax updates every item in each step")
        return self

    def moves_rows(self, n_items: int) -> bool:
        """Whether a step updates only the items that it read, for a catalogue of ``n_items``."""
        if self.sparse_items == "auto":
            return self.loss.of_catalogue(n_items).kind != "softmax" and n_items >= SPARSE_MIN_ITEMS
        return self.sparse_items


class Evaluate(Section):
    protocol: Literal["temporal", "leave_one_out"] = "temporal"
    targets: tuple[TargetType, ...] = Field(
        default=("view", "search", "click", "add_to_cart", "purchase", "rating"), min_length=1
    )
    k: list[Positive] = Field(default=[5, 10, 20], min_length=1)
    test_fraction: Fraction = 0.1
    validation_fraction: Fraction = 0.1
    max_days: Days | None = None
    max_users: Positive = 50_000
    recent_days: Days = 7

    @model_validator(mode="after")
    def _leaves_something_to_learn(self) -> Evaluate:
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError(
                "test_fraction and validation_fraction leave nothing to train on; together they must be below 1"
            )
        return self


class Gate(Section):
    metric: Literal["ndcg", "hit_rate", "mrr"] = "ndcg"
    k: Positive = 10
    margin: Annotated[float, Field(ge=0)] = 0.02
    confidence: Fraction = 0.95
    bootstrap_samples: Positive = 2_000
    min_users: Positive = 20
    must_beat: tuple[Baseline, ...] = ("popularity", "recent_popularity")


class Finetune(Section):
    min_feedback: Annotated[int, Field(ge=0)] = 200
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    replay_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2
    holdout_fraction: Fraction = 0.2


class Nearline(Section):
    interval_seconds: Annotated[float, Field(gt=0)] = 1.0
    popular_seconds: Annotated[float, Field(ge=0)] = 300.0
    broker_seconds: Annotated[float, Field(ge=0)] = 300.0


REWARDS: dict[EventType, float] = {"view": 0.5, "click": 1.0, "add_to_cart": 2.0, "purchase": 4.0, "rating": 1.0}


class Feedback(Section):
    window_hours: Annotated[Hours, Field(gt=0)] = 168.0
    rewards: dict[EventType, Weight] = REWARDS
    rating_scale: Annotated[float, Field(gt=0)] = 5.0

    @field_validator("rewards", mode="before")
    @classmethod
    def _keep_the_others(cls, given: Any) -> Any:
        return {**REWARDS, **given} if isinstance(given, dict) else given


class Privacy(Section):
    key_file: str = ""


class KeepDays(Section):
    """The days after which maintenance deletes a row, by table; None keeps all rows."""

    events: Days | None = None
    quarantine: Days | None = None
    topn_history: Days | None = None
    feedback: Days | None = None


class Maintain(Section):
    retention_hours: Hours = 168
    keep_days: KeepDays = KeepDays()
    keep_versions: Positive | None = None


class Tables(Section):
    lock_timeout_seconds: Positive = 600
    deletion_vectors: bool = False


class Config(Section):
    """Every setting of every job. ``dump`` returns it as plain data, for logs and MLflow."""

    paths: Paths = Paths()
    mlflow: Mlflow = Mlflow()
    ingest: Ingest = Ingest()
    sequence: Sequence = Sequence()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    finetune: Finetune = Finetune()
    topn: Topn = Topn()
    nearline: Nearline = Nearline()
    feedback: Feedback = Feedback()
    privacy: Privacy = Privacy()
    maintain: Maintain = Maintain()
    tables: Tables = Tables()
    spark: dict[str, str] = {}

    @field_validator("spark", mode="before")
    @classmethod
    def _as_spark_text(cls, value: Any) -> Any:
        """The values as text, which Spark expects; YAML reads some of them as numbers and booleans."""
        if not isinstance(value, dict):
            return value
        return {key: json.dumps(one) if isinstance(one, int | float) else one for key, one in value.items()}

    @model_validator(mode="after")
    def _starts_from_features(self) -> Config:
        if self.train.start_from and not self.model.features:
            raise ValueError("train.start_from transfers only the meaning of features; name some in model.features")
        if self.train.start_from and self.model.input_scale is not None:
            raise ValueError("train.start_from takes model.input_scale from that model; leave it out")
        return self

    @model_validator(mode="after")
    def _keeps_lists_as_long_as_actions_answer_them(self) -> Config:
        days, window = self.maintain.keep_days.topn_history, self.feedback.window_hours
        if days is not None and days * 24 < window:
            raise ValueError(
                f"maintain.keep_days.topn_history is {days:g} days, but feedback.window_hours lets an action answer a "
                f"list for {window / 24:g} days; keep lists at least that long"
            )
        return self

    @model_validator(mode="after")
    def _groups_by_events_that_a_sequence_holds(self) -> Config:
        for place, strategy in enumerate(self.topn.strategies):
            if strategy.when.min_events > self.sequence.max_length:
                raise ValueError(
                    f"topn.strategies.{place}.when.min_events is {strategy.when.min_events}, but a sequence holds the last "
                    f"{self.sequence.max_length} events (sequence.max_length), so group {strategy.name} would be empty"
                )
        return self

    @model_validator(mode="after")
    def _reads_what_a_sequence_holds(self) -> Config:
        if self.encoder_length > self.sequence.max_length:
            raise ValueError(
                f"model.max_length is {self.encoder_length}, but a sequence holds the last {self.sequence.max_length} events "
                "(sequence.max_length)"
            )
        return self

    @property
    def encoder_length(self) -> int:
        """The number of events that the encoder reads, the newest of a sequence."""
        return self.model.max_length or self.sequence.max_length

    @property
    def blended(self) -> tuple[BlendPart, ...]:
        """The parts that a training blends in: none without ``model.hybrid``, and repeats only if lists may repeat seen items."""
        parts = self.model.blend if self.model.hybrid else ()
        return tuple(part for part in parts if part != "repeats" or not self.topn.exclude_seen)

    @property
    def tracking_uri(self) -> str:
        """The MLflow store: ``mlflow.tracking_uri``, or a SQLite file inside a local warehouse.

        Raises UsageError if there is neither.
        """
        if self.mlflow.tracking_uri:
            return self.mlflow.tracking_uri
        folder = local.folder(self.paths.warehouse)
        if folder is None:
            raise UsageError("set mlflow.tracking_uri: paths.warehouse is not a local folder that could hold mlflow.db")
        return f"{local.SQLITE}{folder}/mlflow.db"

    def dump(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
