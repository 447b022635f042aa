"""Everything about MLflow: runs, the registry, aliases. MLflow is slow to load and imported only when a job needs it."""

from headwater.tracking.registry import Registry

__all__ = ["Registry"]
