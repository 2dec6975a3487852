"""What goes wrong with a loop; pages are in docs/errors (LIVE001 to LIVE011)."""

from __future__ import annotations

from penstock.errors import PenstockError, RequestError


class LiveError(RequestError):
    """A run that cannot be as asked."""


class LoopError(PenstockError):
    """A run that ended."""
