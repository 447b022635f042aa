"""Check that the page can be written, before the work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from headwater.errors import UsageError


def check_writable(output: Path) -> None:
    """Raises UsageError if no file can be created at ``output``."""
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; name a file in it")
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from None
