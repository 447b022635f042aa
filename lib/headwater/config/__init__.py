"""The whole configuration as frozen, typed data: unknown keys are refused, and errors name the dotted key.

Defaults are defined only here; ``conf/default.yaml`` shows them with units and reasons, and a test keeps the two equal.
``load`` merges files (later files win, mappings are merged, lists replaced) and then ``--set`` pairs.
"""

from headwater.config.files import load
from headwater.config.settings import (
    Baseline,
    Config,
    Feedback,
    Finetune,
    Gate,
    KeepDays,
    Loss,
    Maintain,
    Model,
    Sequence,
    Targets,
    Train,
)
from headwater.config.sources import CATALOG_FIELDS, EVENT_FIELDS, Ingest, Source, UrlRule
from headwater.config.topn import (
    LEAVING_OUT,
    Boosts,
    Exclusion,
    Explore,
    FurtherList,
    Repeat,
    Strategy,
    Topn,
    When,
    Wording,
)

__all__ = [
    "CATALOG_FIELDS",
    "EVENT_FIELDS",
    "LEAVING_OUT",
    "Baseline",
    "Boosts",
    "Config",
    "Exclusion",
    "Explore",
    "Feedback",
    "Finetune",
    "FurtherList",
    "Gate",
    "Ingest",
    "KeepDays",
    "Loss",
    "Maintain",
    "Model",
    "Repeat",
    "Sequence",
    "Source",
    "Strategy",
    "Targets",
    "Topn",
    "Train",
    "UrlRule",
    "When",
    "Wording",
    "load",
]
