"""What the kernel and its stores refuse, said with a code and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock import native
from penstock.errors import DataError

_KINDS = {
    "declared": ("VIEW021", ""),
    "damaged": ("VIEW021", "`penstock features materialise --anew` writes it again"),
    "redeclared": ("VIEW022", "`penstock features materialise --anew` empties it and begins at the source's start"),
    "unknown": ("VIEW023", "`penstock features materialise` writes it"),
    "moved": ("VIEW026", "one updater a view: end the other one"),
    "rows": ("VIEW025", ""),
    "store": ("VIEW021", ""),
    "io": ("VIEW021", ""),
}


@contextmanager
def told() -> Iterator[None]:
    """Native faults leave as `DataError`."""
    try:
        yield
    except native.ViewFault as fault:
        kind, message = fault.args
        code, hint = _KINDS[kind]
        raise DataError(message, hint, code) from None
