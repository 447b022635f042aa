"""All that knows Delta: open, create, append, overwrite, merge, follow changes, lock, maintain."""

from headwater.tables.failpoints import failpoint
from headwater.tables.warehouse import Warehouse, still_there

__all__ = ["Warehouse", "failpoint", "still_there"]
