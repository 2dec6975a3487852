"""Files by their content: `sha256/ab/cdef...` under any fsspec URL. A blob is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from penstock.data import stores
from penstock.errors import DataError
from penstock.registry.faults import RegistryLost

CHUNK_BYTES = 4 << 20
#: Where one put is atomic; elsewhere a blob is written beside its name and moved.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}


class Blobs:
    """`url`: a folder or an fsspec URL. Any number of processes may put, get and delete at once."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._remote: tuple[Any, str] | None = None

    def put(self, source: Path, sha256: str, alive: Callable[[], None] = lambda: None) -> None:
        """Store a file whose content has this hash; nothing happens where it is there already.

        `alive` is called as bytes go. Raises `DataError` (full disk), `RegistryLost` where the file changed meanwhile.
        """
        with stores.storing(self.url):
            if self.size_of(sha256) == source.stat().st_size:
                return
            (self._put_remote if self._is_remote else self._put_local)(source, sha256, alive)

    def get(self, sha256: str, target: Path) -> None:
        """Write the blob to `target`, a new file. Raises `RegistryLost` where it is missing or damaged."""
        try:
            with stores.storing(self.url, "read"), self._open(sha256) as source, target.open("xb") as out:
                found = _copy(source, out, lambda: None)
                os.fsync(out.fileno())
        except DataError as error:
            said = f"a file of the version cannot be fetched from {self.url}: {error.message}"
            raise RegistryLost(said, "was the blob store moved or emptied by hand?", "REG006") from error
        if found != sha256:
            raise RegistryLost(
                f"the blob {sha256[:12]} in {self.url} is damaged: its content has the hash {found[:12]}",
                "push the version again from its bundle, or restore the blob store",
                "REG006",
            )

    def size_of(self, sha256: str) -> int | None:
        """Bytes of a blob that is there; None where it is not."""
        try:
            if self._is_remote:
                return int(self._fs.info(self._path(sha256))["size"])
            return self._local(sha256).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not there is removed already."""
        with stores.storing(self.url, "delete in"), suppress(FileNotFoundError):
            if self._is_remote:
                self._fs.rm_file(self._path(sha256))
            else:
                self._local(sha256).unlink()

    # --- where ---

    @property
    def _is_remote(self) -> bool:
        return stores.is_remote(self.url)

    @property
    def _fs(self) -> Any:
        if self._remote is None:
            self._remote = stores.filesystem(self.url)
        return self._remote[0]

    def _path(self, sha256: str) -> str:
        assert self._fs is not None and self._remote is not None
        return f"{self._remote[1].rstrip('/')}/{_place(sha256)}"

    def _local(self, sha256: str) -> Path:
        return stores.local_path(self.url) / _place(sha256)

    def _open(self, sha256: str) -> BinaryIO:
        opened: BinaryIO = self._fs.open(self._path(sha256)) if self._is_remote else self._local(sha256).open("rb")
        return opened

    def _put_local(self, source: Path, sha256: str, alive: Callable[[], None]) -> None:
        target = self._local(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with source.open("rb") as file, aside.open("xb") as out:
                found = _copy(file, out, alive)
                os.fsync(out.fileno())
            _same(found, sha256, source)
            aside.chmod(0o444)
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _put_remote(self, source: Path, sha256: str, alive: Callable[[], None]) -> None:
        target = self._path(sha256)
        atomic = self.url.partition("://")[0] in _ATOMIC
        aside = target if atomic else f"{target}.{secrets.token_hex(4)}"
        with suppress(FileExistsError):
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        with source.open("rb") as file:
            out = self._fs.open(aside, "wb")
            try:
                found = _copy(file, out, alive)
                _same(found, sha256, source)
            except BaseException:
                if hasattr(out, "discard"):
                    out.discard()
                raise
            out.close()
        if not atomic:
            self._fs.mv(aside, target)


def _place(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256[2:]}"


def _copy(source: BinaryIO, out: BinaryIO, alive: Callable[[], None]) -> str:
    whole = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        whole.update(chunk)
        out.write(chunk)
        alive()
    return whole.hexdigest()


def _same(found: str, sha256: str, source: Path) -> None:
    if found != sha256:
        raise RegistryLost(f"{source} changed while it was pushed", "push it again when nobody writes it", "REG007")
