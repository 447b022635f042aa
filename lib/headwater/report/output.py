"""Where the page goes: asked for before the work, replaced in one step after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from headwater.errors import UsageError


def check_writable(output: Path) -> None:
    """Raises UsageError where no file can be made at ``output``."""
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; name a file in it")
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from None


def write_atomically(text: str, output: Path) -> None:
    """Readers see the old file or the new one, never half of one."""
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, output)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
