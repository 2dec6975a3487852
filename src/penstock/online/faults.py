"""What goes wrong with joins; pages are in docs/errors."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import PenstockError


class StateError(PenstockError):
    """The state of a join cannot be used, or not written to (JOIN003 to JOIN006)."""


def in_use(folder: Path) -> StateError:
    return StateError(
        f"another process joins with the state in {folder}", "end that one first, or is it this join, twice?", "JOIN003"
    )


def other_terms(folder: Path) -> StateError:
    return StateError(
        f"the state in {folder} was made by a join file that means other samples",
        "put the old file back, or name a new folder as `state`: that join begins with `start`",
        "JOIN004",
    )


def broken_state(folder: Path, said: str) -> StateError:
    return StateError(
        f"the state in {folder} cannot be used: {said}",
        "put back a copy, or remove it: the join then begins with `start`",
        "JOIN005",
    )


def not_written(folder: Path, said: str) -> StateError:
    return StateError(
        f"the state in {folder} cannot be written: {said}", "make room; the join tries again until there is", "JOIN006"
    )
