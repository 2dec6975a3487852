"""Where uploads wait: a temporary folder for each, held by flock, so that the next one clears what dead ones left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "penstock-upload-"


class UploadRoom:
    """An empty folder of this process's own, until `leave` or the end of the process."""

    def __init__(self) -> None:
        _sweep()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            with suppress(FileNotFoundError, BlockingIOError):  # a sweeper may be quicker than we
                self._handle = _held(self.path)
                if self.path.exists():
                    return
                os.close(self._handle)

    def leave(self) -> None:
        """Remove the folder; never raises, and doing it twice does nothing more."""
        if self._handle >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._handle)
            self._handle = -1


def _sweep() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if left.lstat().st_uid != os.getuid():
                continue
            handle = _held(left)
            try:
                shutil.rmtree(left)
            finally:
                os.close(handle)


def _held(folder: Path) -> int:
    """The folder, opened and locked. Raises `BlockingIOError` where another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def one_listing_at_a_time() -> Iterator[None]:
    """Hold this user's lock of this machine: two appends that each read a listing and write it back lose none."""
    try:
        name = f"{tempfile.gettempdir()}/penstock-{os.getuid()}-listings.lock"
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # no place for it: somebody else's file, or a read-only system
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
