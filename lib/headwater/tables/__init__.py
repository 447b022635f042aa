"""Everything about Delta: open, create, append, overwrite, merge, follow changes, lock, maintain."""

from headwater.tables.failpoints import failpoint
from headwater.tables.warehouse import Position, Warehouse, bytes_of, try_read_changes

__all__ = ["Position", "Warehouse", "bytes_of", "failpoint", "try_read_changes"]
