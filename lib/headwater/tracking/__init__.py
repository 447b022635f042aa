"""All that knows MLflow: runs, the registry, aliases. It is imported only when a job needs it, for it is slow to load."""

from headwater.tracking.registry import Registry

__all__ = ["Registry"]
