"""Where outputs land: written aside, made durable, then put in place whole. The old one stands until then.

A local file is a temporary beside it, fsynced and renamed. A local folder is swapped by renameat2(RENAME_EXCHANGE).
Anywhere else new files go up first and `_penstock.json`, which lists the live ones, is written last. A process may
die at any instant: what it leaves is hidden and locked by nobody, and the next `Target` of that place removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.data import remote
from penstock.data.stores import MANIFEST, Live, is_remote, local_path, read_manifest, storing
from penstock.data.upload_rooms import UploadRoom
from penstock.errors import DataError

Mode = Literal["replace", "error", "append"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Written:
    """What a commit put in place. `content_hash` depends on names and bytes only."""

    path: str
    size_bytes: int
    content_hash: str


class Target:
    """One place to write, held by one writer: `staging()`, write, then `commit()` or `abort()`.

    Invariant: the place holds the old content or the new, whole, at every instant. A second live writer of the
    same place (for append: of the same RUN-NODE-OUTPUT file) is refused with a `DataError`.
    """

    def __init__(self, url: str, folder: bool, mode: Mode = "replace", *, run: str, node: str, output: str) -> None:
        self.url, self.folder, self.mode = url, folder, mode
        self.stem = f"{run}-{node}-{output}"
        self.remote = is_remote(url)
        self._lock: int | None = None
        self._staging: Path | None = None
        self._room: UploadRoom | None = None
        if mode == "append" and not folder:
            raise DataError(
                f'mode="append" adds a file to a folder, but {url} is a single file',
                "leave the suffix away to write a folder",
                "DATA013",
            )
        if not self.remote:
            self.path = Path(os.path.abspath(local_path(url)))  # noqa: PTH100  a symlink stays a symlink
            self.final = self.path.resolve() if self.path.is_symlink() else self.path

    def staging(self) -> Path:
        """Where to write: a file path that does not exist, or an existing empty folder."""
        if self._staging is not None:
            return self._staging
        if self.remote:
            with storing(self.url):
                if self.mode == "error" and remote.exists(self.url):
                    raise _taken(self.url)
                remote.refuse_wrong_kind(self.url, self.folder)
            self._room = UploadRoom()
            self._staging = self._room.path / ("files" if self.folder else self.url.rsplit("/", 1)[1])
            if self.folder:
                self._staging.mkdir()
            return self._staging
        with storing(self.url):
            self._refuse_wrong_kind()
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self._recover()
            # The suffix stays last: writers choose their compression by it.
            staging = self.final.parent / f"{aside(self.final)}{self._scope()}{self.final.suffix}"
            remove(staging)
            if self.folder:
                staging.mkdir()
            self._staging = staging
        return staging

    def commit(self) -> Written:
        """Make what was written durable and put it in place. On an error the old content stands."""
        staging = self.staging()
        try:
            if self.remote:
                return self._upload(staging)
            with storing(self.url):
                if self.mode == "error" and self.final.exists():
                    raise _taken(self.url)
                sync(staging)
                if self.mode == "append":
                    self._add(staging)
                elif self.folder:
                    self._swap(staging)
                else:
                    os.replace(staging, self.final)  # noqa: PTH105
                _sync_folder(self.final.parent)
                remove(staging)
                return Written(str(self.path), size_bytes(self.url), content_hash(self.url))
        finally:
            self._release()

    def abort(self) -> None:
        """Forget what was written; never raises."""
        if self._staging is not None:
            if not self.remote:
                with contextlib.suppress(OSError):  # the next target of this place removes it
                    remove(self._staging)
            self._staging = None
        self._release()

    # --- one writer at a time ---

    def _scope(self) -> str:
        return self.stem if self.mode == "append" else "new"

    def _lock_path(self) -> Path:
        return self.final.parent / f"{aside(self.final)}{self._scope()}.lock"

    def _acquire(self) -> None:
        self._lock = hold(self._lock_path())
        if self._lock is None:
            raise DataError(
                f"{self.url} is being written by another live run",
                "wait for it, cancel it, or write to another path",
                "DATA014",
            )

    def _release(self) -> None:
        if self._room is not None:
            self._room.leave()
        if self._lock is not None:
            self._lock_path().unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    # --- local places ---

    def _refuse_wrong_kind(self) -> None:
        if self.mode == "error" and self.final.exists():
            raise _taken(self.url)
        if self.folder and self.final.exists() and not self.final.is_dir():
            raise DataError(
                f"{self.url} is a file, and this output writes a folder there",
                "remove it first, or give the path the format's suffix to write one file",
                "DATA013",
            )
        if not self.folder and self.final.is_dir():
            raise DataError(
                f"{self.url} is a folder, and this output writes a single file there",
                "remove it first, or leave the suffix away to write a folder",
                "DATA013",
            )
        if (
            self.folder
            and self.mode == "replace"
            and any(self.final == place or self.final in place.parents for place in (Path.cwd(), Path.home()))
        ):
            raise DataError(
                f"{self.url} holds the folder that you work in; replacing it would delete your files",
                "choose a folder of its own for the output",
                "DATA013",
            )

    def _old(self) -> Path:
        return self.final.parent / f"{aside(self.final)}old"

    def _recover(self) -> None:
        """Undo a swap-by-two-renames that died in the middle (filesystems without RENAME_EXCHANGE)."""
        if self._old().exists() and not self.final.exists():
            self._old().rename(self.final)
        remove(self._old())

    def _swap(self, staging: Path) -> None:
        if not self.final.exists():
            staging.rename(self.final)
        elif not _exchange(staging, self.final):
            self.final.rename(self._old())
            staging.rename(self.final)
            _sync_folder(self.final.parent)
            remove(self._old())

    def _add(self, staging: Path) -> None:
        """Move each staged file into the folder under this run's name; a retry replaces its own."""
        self.final.mkdir(parents=True, exist_ok=True)
        added = []
        for file, name in named_for_append(staging, self.stem):
            target = self.final / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)  # noqa: PTH105
            _sync_folder(target.parent)
            added.append(Live(name, name, target.stat().st_size))
        listing = self.final / MANIFEST
        if listing.exists():  # a folder that was copied here from an object store
            new = {live.path for live in added}
            kept = [live for live in read_manifest(listing.read_bytes(), self.url) if live.path not in new]
            remote.write_local_manifest(listing, kept + added)
        _sync_folder(self.final)

    def _upload(self, staging: Path) -> Written:
        with storing(self.url):
            if self.mode == "error" and remote.exists(self.url):
                raise _taken(self.url)
            if not self.folder:
                remote.put_file(staging, self.url)
            elif self.mode == "append":
                remote.append(self.url, named_for_append(staging, self.stem))
            else:
                remote.replace(self.url, staging, f"{self.stem}-{uuid.uuid4().hex[:8]}")
            return Written(self.url, *_weigh(_listing(staging)))


def aside(final: Path) -> str:
    """How the hidden names begin that lie beside a place while it is written: `.NAME.penstock-`."""
    return f".{final.name}.penstock-"


def hold(lock: Path) -> int | None:
    """Hold a place by flock, which the kernel lets go of when a process dies; None while a live one holds it."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return None
        try:
            same = os.fstat(handle).st_ino == os.stat(lock).st_ino  # noqa: PTH116
        except FileNotFoundError:
            same = False
        if same:
            return handle
        os.close(handle)  # its last holder removed the file between our open and our lock


def named_for_append(staging: Path, stem: str) -> list[tuple[Path, str]]:
    """Staged files with the names they get in the folder: RUN-NODE-OUTPUT, numbered from the second on."""
    named = []
    counts: dict[str, int] = {}
    for file in sorted(p for p in staging.rglob("*") if p.is_file()):
        parent = file.parent.relative_to(staging).as_posix()
        number = counts.get(parent, 0)
        counts[parent] = number + 1
        name = f"{stem}{f'-{number}' if number else ''}{''.join(file.suffixes)}"
        named.append((file, name if parent == "." else f"{parent}/{name}"))
    return named


def content_hash(location: str) -> str:
    """SHA-256 over the names and bytes of a file or of a folder's live files; "" where nothing is there."""
    if is_remote(location):
        return remote.content_hash(location)
    path = local_path(location)
    return _weigh(_listing(path))[1] if path.exists() else ""


def size_bytes(location: str) -> int:
    """Bytes of a file or of a folder's files."""
    path = local_path(location)
    return sum(file.stat().st_size for _, file in _listing(path))


def _listing(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        return [("", path)]
    return sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())


def _weigh(files: list[tuple[str, Path]]) -> tuple[int, str]:
    total, whole = 0, hashlib.sha256()
    for name, path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
        total += path.stat().st_size
        whole.update(len(name.encode()).to_bytes(8, "little") + name.encode() + digest)
    return total, whole.hexdigest()


def _taken(url: str) -> DataError:
    return DataError(
        f'{url} is already there, and mode="error" never replaces', 'remove it, or use mode="replace"', "DATA015"
    )


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync a file, or every file and folder below a folder, deepest first."""
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        return
    if not path.exists():
        raise DataError(f"nothing was written to {path}", "the output's sink left no file", "DATA012")
    for below in sorted(path.rglob("*"), reverse=True):
        if below.is_dir():
            _sync_folder(below)
        else:
            sync(below)
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step. False where the filesystem (or libc) cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))
