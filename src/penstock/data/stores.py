"""Local paths and URLs told apart, and the system's complaints turned into sentences.

Local means a plain path or `file://`; every other URL goes through fsspec.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from penstock.errors import DataError, PenstockError

#: The file that lists what is live in a folder of an object store; written last, honoured by our readers.
MANIFEST = "_penstock.json"
MANIFEST_VERSION = "files/1"

_HINTS = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another path; what stood there before is whole"),
    errno.EDQUOT: ("the disk quota is used up", "free some space; what stood there before is whole"),
    errno.EROFS: ("the file system is read-only", "choose a path that may be written"),
    errno.EACCES: ("permission is denied", "check who owns the path and its folder"),
    errno.EPERM: ("permission is denied", "check who owns the path and its folder"),
    errno.ENOENT: ("it does not exist", ""),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", ""),
    errno.EEXIST: ("a part of its path is a file, not a folder", ""),  # what making a folder there says
    errno.ENAMETOOLONG: ("its name is too long for the file system", ""),
    errno.EFBIG: ("it is too big for the file system", ""),
}


@dataclass(frozen=True)
class Live:
    """One live file of a manifest: where it is, and the name it had when it was written."""

    path: str
    name: str
    size_bytes: int


def is_remote(location: str) -> bool:
    """Whether `location` is a URL that fsspec serves rather than a local path."""
    return "://" in location and not location.startswith("file://")


def local_path(location: str) -> Path:
    """The path behind a plain path or a `file://` URL."""
    if location.startswith("file://"):
        return Path(unquote(location[len("file://") :]))
    return Path(location)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of `url` and the path inside it. Raises `DataError` where no client is installed."""
    import fsspec

    try:
        if url.startswith(("hdfs://", "viewfs://")):
            found = _hadoop(url)
        else:
            found = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme = url.partition("://")[0]
        raise DataError(
            f"no client for {scheme}:// addresses: {error}",
            "install it: pip install s3fs, gcsfs, adlfs, or penstock[hdfs]",
            "DATA010",
        ) from error
    except OSError as error:
        raise storage_error(error, url, "read") from error
    fs, path = found
    return fs, str(path).rstrip("/") or "/"


def _hadoop(url: str) -> tuple[Any, str]:
    """HDFS without a JVM. Raises `DataError` soon where no namenode answers."""
    from penstock.data.hadoop import HadoopFileSystem, Unreachable

    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    try:
        return HadoopFileSystem(scheme, authority), slash + path
    except Unreachable as error:
        raise DataError(
            f"cannot reach {url}: {error.strerror}",
            "is HDFS up, and is this its RPC port (often 8020 or 9000)? An address without a port is a nameservice "
            "of the configuration in HADOOP_CONF_DIR",
            "DATA023",
        ) from error


def kind(fs: Any, path: str) -> str | None:
    """What is there: file, directory, or None. Unlike fsspec's `isfile` it never takes a refusal for a no."""
    try:
        return str(fs.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_manifest(fs: Any, folder: str, live: list[Live]) -> None:
    """Make exactly `live` the folder's content for every reader of ours."""
    files = [{"path": f.path, "name": f.name, "size_bytes": f.size_bytes} for f in live]
    fs.pipe_file(f"{folder}/{MANIFEST}", json.dumps({"penstock": MANIFEST_VERSION, "files": files}).encode())


def read_manifest(text: bytes | str, where: str) -> list[Live]:
    """The live files that a manifest lists. Raises `DataError` where it is not one of ours."""
    try:
        stored = json.loads(text)
        if stored["penstock"] != MANIFEST_VERSION:
            raise ValueError(f"its version is {stored['penstock']}")
        return [Live(f["path"], f["name"], f.get("size_bytes", 0)) for f in stored["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}/{MANIFEST} is not a list of files that this version can read: {error}",
            "was it written by hand, or by a newer Penstock?",
            "DATA011",
        ) from error


def storage_error(error: OSError, location: str, verb: str) -> DataError:
    """What the system said, as a colleague would: `cannot write out/train: the disk is full`."""
    said, hint = _HINTS.get(error.errno or 0, (error.strerror or str(error), ""))
    if is_remote(location) and error.strerror:  # a server names the user or the quota
        said = error.strerror
    return DataError(f"cannot {verb} {location}: {said}", hint, "DATA012")


@contextmanager
def storing(location: str, verb: str = "write") -> Iterator[None]:
    """Turn the system's errors inside the block into `DataError`s about `location`."""
    try:
        yield
    except PenstockError:
        raise
    except OSError as error:
        raise storage_error(error, location, verb) from error
    except Exception as error:
        # Clients of object stores have errors of their own, e.g. for credentials that are not there.
        home = type(error).__module__.partition(".")[0]
        if not is_remote(location) or home in ("builtins", "pyarrow", "polars"):
            raise
        hint = "check the address, the network and the credentials"
        raise DataError(f"cannot {verb} {location}: {type(error).__name__}: {error}", hint, "DATA012") from error
