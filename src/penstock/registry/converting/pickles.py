"""Pickles: programs that run as they are opened. Only with `--trust-pickle`, and only in the limited process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.registry.faults import ConversionError

#: How pickles, joblib's compressed ones among them, begin. A ZIP may be torch's, skops' or Keras'.
_BEGINS = (b"\x80", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x78\x9c", b"\x78\x01", b"\x78\xda", b"(dp", b"ccopy_reg")


def is_pickle(path: Path) -> bool:
    """By suffix, or by how it begins."""
    if path.suffix in (".pkl", ".pickle", ".joblib"):
        return True
    with path.open("rb") as file:
        return file.read(16).startswith(_BEGINS)


def unpickle(path: Path, trusted: bool, instead: str) -> Any:
    """What a pickle makes. Raises `ConversionError` (REG019) unless it is trusted; `instead` is a safe way."""
    if not trusted:
        said = f"{path} is a pickle, which runs whatever program it holds when it is opened"
        hint = f"save it safely ({instead}); --trust-pickle opens it if you know who wrote it"
        raise ConversionError(said, hint, "REG019")
    try:
        import joblib

        return joblib.load(path)
    except Exception as error:  # a pickle may raise anything
        said = f"{path} cannot be opened: {type(error).__name__}: {error}"
        raise ConversionError(said, "is the library that made it installed, in this version?", "REG015") from error
