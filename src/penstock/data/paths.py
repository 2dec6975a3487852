"""From what a flow's `path` says to the files behind it.

A path is a file, a folder, a glob, or several of these; local or any fsspec URL. Hidden and `_` names are never
data; a folder with `_penstock.json` holds exactly what that lists; `name=value` folders become columns.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from typing import Any, Literal
from urllib.parse import unquote

from penstock.data.remote import live_files, mark_of
from penstock.data.stores import MANIFEST, filesystem, is_remote, kind, local_path, read_manifest, storing
from penstock.errors import DataError, did_you_mean

#: How Hive and Spark spell a null in a folder's name.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

_MAGIC = re.compile(r"[*?\[]")
_PARTITION = re.compile(r"([^=/]+)=([^/]*)")


@dataclass(frozen=True)
class File:
    """One file to read. `partitions`: (column, text or None), from its `name=value` folders, outermost first.

    `mark`: what a remote file's store says of its version, so that what is remembered of one is not taken for the next.
    """

    url: str
    size_bytes: int
    partitions: tuple[tuple[str, str | None], ...] = ()
    mark: str = ""

    @property
    def remote(self) -> bool:
        return is_remote(self.url)


def split_locations(text: str, base: Path | None = None) -> list[str]:
    """The several paths that one attribute may hold: by commas, else by spaces. What is there under its whole name
    (relative to `base`) is one path."""
    text = text.strip()
    if not re.search(r"[\s,]", text) or _present(text, base):
        return [text] if text else []
    if "," in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    parts = text.split()
    # `/my data/clicks.csv` that is not there is one missing path, not two: pieces of several paths look like paths.
    rooted = [p.startswith("/") or "://" in p for p in parts]
    return [text] if rooted[0] and not all(rooted) else parts


def resolve(
    location: str | Sequence[str], *, base: Path | None = None, missing: Literal["error", "skip"] = "error"
) -> list[File]:
    """The files to read, in the order of the paths given and sorted within each.

    Raises `DataError`: DATA001 nothing is there (unless missing="skip"), DATA002 a folder without data,
    DATA003 a glob without a match.
    """
    locations = split_locations(location, base) if isinstance(location, str) else list(location)
    if not locations:
        raise DataError("the path is empty", "name a file, a folder or a glob", "DATA001")
    found: dict[str, File] = {}
    for one in locations:
        files = _remote_files(one, missing) if is_remote(one) else _local_files(one, base, missing)
        for file in files:
            found.setdefault(file.url, file)
    if not found:
        raise DataError(
            f"none of {', '.join(locations)} exists", 'missing="skip" skips some, but one must be there', "DATA001"
        )
    return list(found.values())


def is_data(name: str) -> bool:
    """Whether a file or folder of this name may hold data: not hidden, not `_SUCCESS` and the like."""
    return not name.startswith((".", "_"))


def partitions_of(path: str) -> tuple[tuple[str, str | None], ...]:
    """The `name=value` folders on the way to a file."""
    if "=" not in path:
        return ()
    folders = PurePosixPath(path.partition("://")[2] if "://" in path else path).parts[:-1]
    pairs = (_PARTITION.fullmatch(part) for part in folders)
    return tuple((unquote(m[1]), None if m[2] == NULL_PARTITION else unquote(m[2])) for m in pairs if m)


# --- local ---------------------------------------------------------------------------------------------------


def _present(location: str, base: Path | None) -> bool:
    return not is_remote(location) and os.path.lexists((base or Path()) / local_path(location))


def _local_files(location: str, base: Path | None, missing: str) -> list[File]:
    path = local_path(location)
    if base is not None and not path.is_absolute():
        path = base / path
    with storing(location, "read"):
        found = _stat(path)
        if found is not None and S_ISDIR(found.st_mode):
            return _folder(path)
        if found is not None:
            return [File(str(path), found.st_size, partitions_of(path.as_posix()))]
        if _MAGIC.search(location):
            return _glob(path, missing)
    if missing == "skip":
        return []
    raise _no_such(path)


def _stat(path: Path) -> os.stat_result | None:
    """None where nothing is there, for the same reasons as `Path.exists`; asked once, not once a question."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ELOOP):
            return None
        raise
    except ValueError:  # a null byte
        return None


def _file(path: Path) -> File:
    return File(str(path), path.stat().st_size, partitions_of(path.as_posix()))


def _folder(path: Path) -> list[File]:
    listing = path / MANIFEST
    if listing.is_file():
        files = [path / live.path for live in read_manifest(listing.read_bytes(), str(path))]
    else:
        files = []
        for parent, folders, names in os.walk(path, followlinks=True):
            folders[:] = sorted(f for f in folders if is_data(f))
            files += [Path(parent, name) for name in names if is_data(name)]
    if not files:
        raise DataError(
            f"{path} is a folder without data files", "hidden files and names that start with _ are not data", "DATA002"
        )
    return [_file(file) for file in sorted(files)]


def _glob(path: Path, missing: str) -> list[File]:
    import glob

    matches = sorted(Path(m) for m in glob.iglob(str(path), recursive=True))  # noqa: PTH207  a pattern, not a tree
    files: list[File] = []
    for match in matches:
        if not is_data(match.name):
            continue
        if match.is_dir():
            try:
                files += _folder(match)
            except DataError as error:
                if error.code != "DATA002":
                    raise
        else:
            files.append(_file(match))
    if not files and missing != "skip":
        raise DataError(f"nothing matches {path}", "* stays within a folder; ** crosses folders", "DATA003")
    return files


def _no_such(path: Path) -> DataError:
    """Name the closest thing that is there: where the path leaves the tree is usually where the slip is."""
    there = path
    while not there.parent.is_dir() and there.parent != there:
        there = there.parent
    siblings = sorted(p.name for p in there.parent.iterdir() if is_data(p.name)) if there.parent.is_dir() else []
    shown = ", ".join(siblings[:5]) + (", ..." if len(siblings) > 5 else "")
    otherwise = f"{there.parent} holds {shown}" if siblings else f"{there.parent} is empty"
    return DataError(f"{path} does not exist", did_you_mean(there.name, siblings, otherwise), "DATA001")


# --- anywhere else ---------------------------------------------------------------------------------------------


def _remote_files(url: str, missing: str) -> list[File]:
    fs, path = filesystem(url)
    with storing(url, "read"):
        fs.invalidate_cache()
        found = kind(fs, path)
        if found == "file":
            info = fs.info(path)
            return [File(url, int(info.get("size") or 0), partitions_of(url), mark_of(info))]
        if found == "directory":
            return _remote_folder(url, path)
        if _MAGIC.search(url):
            files: list[File] = []
            prefix = url[: len(url) - len(path)] if url.endswith(path) else url.partition("://")[0] + "://"
            for match in sorted(fs.glob(path)):
                if is_data(match.rstrip("/").rpartition("/")[2]):
                    files += _remote_match(prefix + match)
            if files or missing == "skip":
                return files
            raise DataError(f"nothing matches {url}", "* stays within a folder; ** crosses folders", "DATA003")
        if missing == "skip":
            return []
        raise _no_such_url(fs, url, path)


def _remote_match(url: str) -> list[File]:
    """One match of a glob; a folder without data is no match."""
    try:
        return _remote_files(url, "skip")
    except DataError as error:
        if error.code != "DATA002":
            raise
        return []


def _no_such_url(fs: Any, url: str, path: str) -> DataError:
    """As for local paths: what is there where the path leaves the tree."""
    there, name = path, path
    while there.strip("/"):
        there, _, name = there.rstrip("/").rpartition("/")
        if kind(fs, there or "/") == "directory":
            break
    siblings = [p.rstrip("/").rpartition("/")[2] for p in fs.ls(there or "/", detail=False)] if there != path else []
    siblings = sorted(sibling for sibling in siblings if is_data(sibling))
    place = f"{url.removesuffix(path)}{there or '/'}"
    shown = ", ".join(siblings[:5]) + (", ..." if len(siblings) > 5 else "")
    otherwise = f"{place} holds {shown}" if siblings else f"{place} is empty"
    return DataError(f"{url} does not exist", did_you_mean(name, siblings, otherwise), "DATA001")


def _remote_folder(url: str, path: str) -> list[File]:
    fs, _ = filesystem(url)
    live = live_files(fs, path)
    base = url.rstrip("/")
    if live is not None:
        found = [(f"{base}/{file.path}", file.size_bytes, "") for file in live]
    else:
        root = path.strip("/")
        found = []
        for file, detail in fs.find(path, detail=True).items():
            below = file.strip("/")[len(root) + 1 :] if root else file.strip("/")
            if all(is_data(part) for part in below.split("/")):
                found.append((f"{base}/{below}", int(detail.get("size") or 0), mark_of(detail)))
    if not found:
        raise DataError(
            f"{url} is a folder without data files", "hidden files and names that start with _ are not data", "DATA002"
        )
    return [File(one, size, partitions_of(one), mark) for one, size, mark in sorted(found)]


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a glob of column names matches, case-sensitively."""
    return [name for name in names if fnmatchcase(name, pattern)]
