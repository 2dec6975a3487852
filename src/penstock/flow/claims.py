"""Who is writing which path: two live runs never write one, even from different run stores of this machine.

A claim is a lock file in the system's temporary folder, named by the path's hash and held by flock: it is free again
the moment its run ends, however that ends. (`Target` guards the moment of writing itself, on any machine.)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from penstock.data.stores import is_remote, local_path
from penstock.errors import RequestError
from penstock.flow.plan import PlannedNode


def written_paths(nodes: Iterable[PlannedNode]) -> dict[str, str]:
    """The paths that runs of these nodes replace -> "node.output". Appending adds a file of the run's own."""
    return {
        o.path if is_remote(o.path) else str(local_path(o.path).resolve()): f"{node.name}.{name}"
        for node in nodes
        for name, o in node.outputs.items()
        if o.path and o.mode != "append"
    }


class Claims:
    """The paths one run holds; `release` (or the end of the process) frees them."""

    def __init__(self, paths: Mapping[str, str], run: str) -> None:
        """Raises `RequestError` naming the other run when a path is taken; then none is held."""
        self._handles: list[int] = []
        folder = _folder()
        if folder is None:
            return
        for path, output in sorted(paths.items()):
            handle = os.open(folder / hashlib.sha256(path.encode()).hexdigest(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                other = os.read(handle, 200).decode("utf-8", "replace")
                os.close(handle)
                self.release()
                raise RequestError(
                    f"output {output} writes {path}, which run {other or 'another run'} is writing now",
                    f"wait for it, stop it (penstock flow cancel {other or 'RUN'}), or write to another path",
                    "RUN008",
                ) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, run.encode(), 0)
            self._handles.append(handle)

    def release(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles.clear()


def _folder() -> Path | None:
    """A folder that only this user can write; None where there is no such thing (claims are then left to `Target`)."""
    folder = Path(f"/tmp/penstock-{os.getuid()}/claims")  # noqa: S108  the same for all of a user's processes
    with suppress(OSError):
        for part in (folder.parent, folder):
            part.mkdir(mode=0o700, exist_ok=True)
        found = folder.parent.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return folder
    return None
