"""HDFS without a JVM: an fsspec filesystem over hdfs-native, with errors that say what is wrong, and soon.

The client's own fsspec class cuts paths at `?` and `#`, cannot upload files, retries an unreachable namenode for three
minutes, and tells a refused permission as a RuntimeError; hence this one. Kerberos, high availability and mount
tables come from HADOOP_CONF_DIR, the user from HADOOP_USER_NAME, as for every Hadoop program.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from hdfs_native import Client, WriteOptions

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_SECONDS = 5.0
#: For a namenode's first answer.
ANSWER_SECONDS = 10.0
#: The same where the configuration knows several: the client tries a dead one for three minutes before the next.
FAILOVER_SECONDS = 240.0

_COPY_BYTES = 4 << 20
_READ_AHEAD_BYTES = 1 << 20
_SAID = re.compile(r'\w+\("([\w.$]+)", "(.*)"\)', re.DOTALL)
_INVALID = re.compile(r'[A-Z]\w+\("(.*)"\)')
_MEANING = {
    "AccessControlException": errno.EACCES,
    "SafeModeException": errno.EROFS,
    "DSQuotaExceededException": errno.EDQUOT,
    "NSQuotaExceededException": errno.EDQUOT,
    "ParentNotDirectoryException": errno.ENOTDIR,
    "PathIsNotEmptyDirectoryException": errno.ENOTEMPTY,
}


class Unreachable(OSError):
    """No namenode answers at this address."""


class HadoopFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """One namenode, nameservice or mount table. Every method raises `OSError` with `errno` and one line of text."""

    root_marker = "/"

    def __init__(self, scheme: str, authority: str) -> None:
        super().__init__(scheme, authority)
        self.protocol = scheme
        self.address = f"{scheme}://{authority}"
        self.client = _connected(self.address, authority)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        if "://" in path:
            path = "/" + path.partition("://")[2].partition("/")[2]
        return path.rstrip("/") or "/"

    # --- looking ---

    def info(self, path: str, **_: object) -> dict[str, Any]:
        path = self._strip_protocol(path)
        with _told(path):
            return _described(self.client.get_file_info(path))

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:
        path = self._strip_protocol(path)
        with _told(path):
            found = [_described(status) for status in self.client.list_status(path)]
        return found if detail else [one["name"] for one in found]

    def exists(self, path: str, **_: object) -> bool:
        return self._kind(path) is not None

    def isdir(self, path: str) -> bool:
        return self._kind(path) == "directory"

    def isfile(self, path: str) -> bool:
        return self._kind(path) == "file"

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: object
    ) -> Any:
        """As fsspec has it, except that a folder which may not be listed is an error, never left out in silence."""
        top = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        kind = self._kind(top)
        if kind == "file":
            found[top] = self.info(top)
        depth, level = 1, [top] if kind == "directory" else []
        while level and (maxdepth is None or depth <= maxdepth):
            below: list[str] = []
            for folder in level:
                for one in self.ls(folder):
                    is_folder = one["type"] == "directory"
                    if is_folder:
                        below.append(one["name"])
                    if withdirs or not is_folder:
                        found[one["name"]] = one
            depth, level = depth + 1, below
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    # --- changing ---

    def mkdir(self, path: str, create_parents: bool = True, **_: object) -> None:
        path = self._strip_protocol(path)
        with _told(path):
            self.client.mkdirs(path, 0o755, create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, "it is there already", path)
        self.mkdir(path)

    def replace(self, source: str, target: str) -> None:
        """Rename a file over what is there, in one step."""
        with _told(target):
            self.client.rename(self._strip_protocol(source), self._strip_protocol(target), overwrite=True)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        with _told(path):
            self.client.delete(path, False)

    def rmdir(self, path: str) -> None:
        self.rm_file(path)

    # --- content ---

    def put_file(self, lpath: str, rpath: str, **_: object) -> None:
        with Path(lpath).open("rb") as source:
            self._write(rpath, source)

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        self._write(path, io.BytesIO(value))

    def _write(self, path: str, source: Any) -> None:
        """Durable when this returns: on the datanodes' disks, and the file closed at the namenode."""
        path = self._strip_protocol(path)
        options = WriteOptions()
        options.overwrite = True
        with _told(path), self.client.create(path, write_options=options) as sink:
            shutil.copyfileobj(source, sink, _COPY_BYTES)

    def _open(self, path: str, mode: str = "rb", **_: object) -> io.BufferedIOBase:
        if mode != "rb":
            raise ValueError(f"files are opened for reading here, not for '{mode}'")
        path = self._strip_protocol(path)
        with _told(path):
            return _Stream(_Reader(path, self.client.read(path)), _READ_AHEAD_BYTES)


class _Reader(io.RawIOBase):
    """A file's bytes; the client's own reader returns nothing from `seek`, which buffers do not take."""

    def __init__(self, path: str, raw: Any) -> None:
        super().__init__()
        self._path, self._raw = path, raw
        self.size = len(raw)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._raw.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.size}[whence]
        self._raw.seek(min(max(start + offset, 0), self.size))
        return self.tell()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        with _told(self._path):
            got = self._raw.read(len(view))
        view[: len(got)] = got
        return len(got)


class _Stream(io.BufferedReader):
    """Buffered, with the size that fsspec asks an open file for."""

    @property
    def size(self) -> int:
        return int(self.raw.size)  # type: ignore[attr-defined]


def _connected(address: str, authority: str) -> Any:
    """A client whose namenode has answered once. Raises `Unreachable` in bounded time."""
    host, colon, port = authority.rpartition(":")
    seconds = FAILOVER_SECONDS
    if colon and port.isdigit():
        seconds = ANSWER_SECONDS
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise Unreachable(errno.EHOSTUNREACH, f"no namenode at {authority}: {text.lower()}") from error
    answer: list[Any] = []

    def ask() -> None:
        try:
            client = Client(address)
            client.get_file_info("/")
            answer.append(client)
        except Exception as error:  # told to the one who waits
            answer.append(error)

    # The client has no time limit of its own; a thread that never comes back ends with the process.
    asking = threading.Thread(target=ask, name="penstock-namenode", daemon=True)
    asking.start()
    asking.join(seconds)
    if not answer:
        raise Unreachable(errno.ETIMEDOUT, f"{address} took the call but did not answer in {seconds:.0f} s")
    if isinstance(answer[0], Exception):
        said = translated(answer[0], "/")
        if said.errno in (errno.EACCES, errno.EROFS):
            return Client(address)  # somebody did answer
        raise Unreachable(errno.EHOSTUNREACH, f"{address} does not answer as a namenode: {said.strerror}")
    return answer[0]


def _described(status: Any) -> dict[str, Any]:
    return {
        "name": status.path,
        "size": status.length,
        "type": "directory" if status.isdir else "file",
        "owner": status.owner,
        "modification_time": status.modification_time,
    }


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise translated(error, path) from error


def translated(error: Exception, path: str) -> OSError:
    """The client's complaint as an `OSError` with a number and one line, without the namenode's Java stack."""
    text = str(error)
    kind = ""
    if remote := _SAID.fullmatch(text):
        kind, text = remote[1].rpartition(".")[2], remote[2].replace('\\"', '"')
    line = re.split(r"\n|\\n", text, maxsplit=1)[0].strip()
    if invalid := _INVALID.fullmatch(line):
        line = invalid[1]
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "it does not exist", path)
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, line, path)
    return OSError(_MEANING.get(kind, errno.EIO), line or type(error).__name__, path)
