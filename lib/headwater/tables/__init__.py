"""Everything about Delta: open, create, append, overwrite, merge, follow changes, lock, maintain."""

from headwater.tables.failpoints import failpoint
from headwater.tables.warehouse import Position, Warehouse, bytes_of, still_there

__all__ = ["Position", "Warehouse", "bytes_of", "failpoint", "still_there"]
