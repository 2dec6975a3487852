"""What writers that were killed left beside the places they wrote: hidden, held by nobody, and in nobody's way.

The next `Target` of the same place removes it; where none comes, `flow gc` does.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from penstock.data.stores import is_remote, local_path
from penstock.data.targets import aside, hold, remove


@dataclass(frozen=True)
class Leftover:
    """Something half written for `place`; whoever wrote it held `lock`."""

    path: Path
    place: Path
    lock: Path
    size_bytes: int


def leftovers(location: str) -> list[Leftover]:
    """What lies beside a local file or folder and no live process holds, by name. Changes nothing."""
    if is_remote(location):
        return []
    place = Path(os.path.abspath(local_path(location)))  # noqa: PTH100  a symlink stays a symlink
    place = place.resolve() if place.is_symlink() else place
    if not place.parent.is_dir():
        return []
    found: list[Leftover] = []
    for path in sorted(place.parent.iterdir()):
        scope = path.name.removeprefix(aside(place))
        if scope == path.name or _is_all_there_is(scope, place):
            continue
        lock = path if scope.endswith(".lock") else _lock_of(scope, place)
        if not _held(lock) and all(lock != known.lock for known in found):  # a lock goes with what it guarded
            found.append(Leftover(path, place, lock, _weight(path)))
    return found


def _lock_of(scope: str, place: Path) -> Path:
    """The lock of what lies aside under this name; the old content of a swap was under the replacing writer's."""
    return place.with_name(f"{aside(place)}{'new' if scope == 'old' else scope.removesuffix(place.suffix)}.lock")


def clear(left: Leftover) -> bool:
    """Remove it; False where a live writer has taken the place meanwhile, or it may not be removed."""
    try:
        handle = hold(left.lock)
        if handle is None:
            return False
        try:
            if _is_all_there_is(left.path.name.removeprefix(aside(left.place)), left.place):
                return False
            remove(left.path)
        finally:
            left.lock.unlink(missing_ok=True)
            os.close(handle)
    except OSError:
        return False
    return True


def _is_all_there_is(scope: str, place: Path) -> bool:
    """Whether it is the old content of a swap by two renames that died between them: the next writer restores it."""
    return scope == "old" and not os.path.lexists(place)


def _held(lock: Path) -> bool:
    """Whether a live process writes there; asked without leaving a lock behind."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _weight(path: Path) -> int:
    files = [path] if not path.is_dir() or path.is_symlink() else [p for p in path.rglob("*") if not p.is_dir()]
    return sum(p.lstat().st_size for p in files)
