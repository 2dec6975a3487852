"""The control side's lines of the host's log: a JSON object a line on stderr, as the native side writes them."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def log(level: str, event: str, **fields: Any) -> None:
    """`level`: info, warning, error. Nobody is left to be told when stderr is closed."""
    line = json.dumps({"ts": round(time.time(), 6), "level": level, "event": event, **fields}, default=str)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return
