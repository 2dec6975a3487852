"""Where ONNX Runtime's library is: inside its wheel, which need not be imported for that."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def onnxruntime_library() -> Path | None:
    """`libonnxruntime.so.*` of the installed wheel; None where it is not installed."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return None
    libraries = sorted((Path(found.origin).parent / "capi").glob("libonnxruntime.so.*"))
    return libraries[-1] if libraries else None
