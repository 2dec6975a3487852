"""Writing a small text file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from penstock.errors import PenstockError


def replace_text(path: Path, text: str) -> None:
    """Write beside the target, then rename over it; keeps its permissions. Raises `PenstockError`."""
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else None
        target = path.resolve()  # a link stays one
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if mode is None:
                mask = os.umask(0)
                os.umask(mask)
                mode = 0o666 & ~mask
            Path(temporary).chmod(mode)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PenstockError(f"cannot write {path}: {error.strerror or error}") from None
