"""What goes wrong with a loop; pages are in docs/errors (LIVE001 to LIVE013)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.errors import PenstockError, RequestError


class LiveError(RequestError):
    """A run that cannot be as asked."""


class LoopError(PenstockError):
    """A run that ended: its disk is full, or fails (LIVE013)."""


@contextmanager
def told() -> Iterator[None]:
    """What the system says, in a loop's words: `LoopError`."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        said = f"the loop ended: {where}{error.strerror or error}"
        hint = "make room if a disk is full, then start it again: it goes on from its newest checkpoint"
        raise LoopError(said, hint, "LIVE013") from error
