"""Whole outputs on object stores, HDFS and any other fsspec filesystem.

None of them can swap folders, so a folder there is what `_penstock.json` lists. New files get names never used
before; the listing is written when all are up; only then do the old files go. A reader sees the old or the new.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from penstock.data.stores import MANIFEST, MANIFEST_VERSION, Live, filesystem, kind, read_manifest, write_manifest
from penstock.data.upload_rooms import one_listing_at_a_time
from penstock.errors import DataError

#: Filesystems where an upload appears only when it is complete.
_ATOMIC_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})


_UPLOADS = 16
#: Where filesystems keep what changes with a file.
_MARKS = ("ETag", "etag", "generation", "mtime", "modification_time", "LastModified", "last_modified", "created")


def exists(url: str) -> bool:
    """Whether a reader would find anything at `url`."""
    fs, path = filesystem(url)
    found = kind(fs, path)
    return found == "file" or (found == "directory" and live_files(fs, path) != [])


def refuse_wrong_kind(url: str, folder: bool) -> None:
    """Raise `DataError` where a file stands in a folder's place or a folder in a file's."""
    fs, path = filesystem(url)
    found = kind(fs, path)
    if folder and found == "file":
        said, hint = "is a file, and this output writes a folder there", "the format's suffix to write one file"
    elif not folder and found == "directory":
        said, hint = "is a folder, and this output writes a single file there", "no suffix to write a folder"
    else:
        return
    raise DataError(f"{url} {said}", f"remove it first, or give the path {hint}", "DATA013")


def put_file(source: Path, url: str) -> None:
    """Upload one file so that `url` is the old or the new, never a part."""
    fs, path = filesystem(url)
    _put(fs, source, path)


def replace(url: str, staging: Path, stem: str) -> None:
    """Make the files below `staging` the folder's content."""
    fs, folder = filesystem(url)
    old = [p for p in fs.find(folder) if _below(folder, p) != MANIFEST]
    if live_files(fs, folder) is None:
        # Without a listing readers take what is there; from here on they take what was there.
        fs.makedirs(folder, exist_ok=True)
        _swap_manifest(fs, folder, _unlisted(fs, folder))
    files, live = [], []
    for file in sorted(p for p in staging.rglob("*") if p.is_file()):
        name = file.relative_to(staging).as_posix()
        parent, slash, last = name.rpartition("/")
        path = f"{parent}{slash}{stem}-{last}"
        files.append((file, f"{folder}/{path}"))
        live.append(Live(path, name, file.stat().st_size))
    _put_all(fs, files)
    _swap_manifest(fs, folder, live)
    for path in old:
        fs.rm_file(path)
    _drop_empty_folders(fs, folder, old)


def append(url: str, files: list[tuple[Path, str]]) -> None:
    """Add files under the names given; where the folder has a listing they are added to it last."""
    fs, folder = filesystem(url)
    _put_all(fs, [(file, f"{folder}/{name}") for file, name in files])
    added = [Live(name, name, file.stat().st_size) for file, name in files]
    with one_listing_at_a_time():
        listed = live_files(fs, folder)
        if listed is not None:
            new = {live.path for live in added}
            _swap_manifest(fs, folder, [live for live in listed if live.path not in new] + added)


def live_files(fs: Any, folder: str) -> list[Live] | None:
    """What the folder's `_penstock.json` lists; None where there is none."""
    try:
        text = fs.cat_file(f"{folder}/{MANIFEST}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return read_manifest(text, folder)


def fetch(url: str, folder: Path) -> Path:
    """Copy a remote folder's live files into `folder`, under the names they were written with."""
    fs, path = filesystem(url)
    live = live_files(fs, path)
    for file in _unlisted(fs, path, every=True) if live is None else live:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(f"{path}/{file.path}", str(target))
    return folder


def content_hash(url: str) -> str:
    """SHA-256 over names and bytes, equal to the local one of the same files."""
    fs, path = filesystem(url)
    whole = hashlib.sha256()
    for name, file in sorted(_content(fs, path)):
        digest = hashlib.sha256()
        with fs.open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        whole.update(len(name.encode()).to_bytes(8, "little") + name.encode() + digest.digest())
    return whole.hexdigest() if kind(fs, path) else ""


def stat_of(url: str) -> str:
    """A quick fingerprint from sizes and what the store says of changes; "" where there is none."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    if kind(fs, path) is None:
        return ""
    files = sorted(_content(fs, path))
    whole = hashlib.sha256()
    for name, file in files:
        info = fs.info(file)
        mark = mark_of(info)
        if not mark:
            return ""
        whole.update("\0".join((name, file, str(info.get("size")), mark, "\n")).encode())
    return f"{len(files)} files:{whole.hexdigest()}"


def mark_of(info: dict[str, Any]) -> str:
    """What changes with a file, as its filesystem says it; "" where it says nothing."""
    return "\0".join(str(info[mark]) for mark in _MARKS if info.get(mark))


def _content(fs: Any, path: str) -> list[tuple[str, str]]:
    """(name, path) of a file or of a folder's live files."""
    found = kind(fs, path)
    if found != "directory":
        return [("", path)] if found else []
    live = live_files(fs, path)
    return [(file.name, f"{path}/{file.path}") for file in (_unlisted(fs, path, True) if live is None else live)]


def _unlisted(fs: Any, folder: str, every: bool = False) -> list[Live]:
    """What a folder without a listing holds: its data files, or every file."""
    found = []
    for path, info in fs.find(folder, detail=True).items():
        name = _below(folder, path)
        if every or not any(part.startswith((".", "_")) for part in name.split("/")):
            found.append(Live(name, name, int(info.get("size") or 0)))
    return found


def _below(folder: str, path: str) -> str:
    return path.strip("/")[len(folder.strip("/")) :].lstrip("/")


def _drop_empty_folders(fs: Any, folder: str, removed: list[str]) -> None:
    """Where folders are things of their own, those that held only what was removed go with it."""
    if _atomic(fs):
        return
    parents = {"/".join(name.split("/")[:end]) for name in (_below(folder, p) for p in removed)
               for end in range(1, name.count("/") + 1)}  # fmt: skip
    for parent in sorted(parents, key=len, reverse=True):
        with contextlib.suppress(OSError):  # it holds something new
            fs.rmdir(f"{folder}/{parent}")


def write_local_manifest(path: Path, live: list[Live]) -> None:
    """The same listing in a local folder, replaced in one step."""
    files = [{"path": f.path, "name": f.name, "size_bytes": f.size_bytes} for f in live]
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps({"penstock": MANIFEST_VERSION, "files": files}))
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def _swap_manifest(fs: Any, folder: str, live: list[Live]) -> None:
    if _atomic(fs):
        write_manifest(fs, folder, live)
        return
    aside = f"{folder}/.penstock-listing"
    fs.makedirs(aside, exist_ok=True)
    write_manifest(fs, aside, live)
    _move(fs, f"{aside}/{MANIFEST}", f"{folder}/{MANIFEST}")
    fs.rmdir(aside)


def _put_all(fs: Any, files: list[tuple[Path, str]]) -> None:
    """Several at once where the client may be asked so: closing one HDFS file takes half a second of waiting."""
    if not _atomic(fs) and not hasattr(fs, "replace"):
        for file, path in files:
            _put(fs, file, path)
        return
    with ThreadPoolExecutor(_UPLOADS) as pool:
        for _ in pool.map(lambda one: _put(fs, *one), files):
            pass


def _put(fs: Any, source: Path, path: str) -> None:
    parent, _, name = path.rpartition("/")
    if parent:
        fs.makedirs(parent, exist_ok=True)
    if _atomic(fs):
        fs.put_file(str(source), path)
        return
    aside = f"{parent}/.{name}.penstock-new"
    fs.put_file(str(source), aside)
    _move(fs, aside, path)


def _atomic(fs: Any) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return any(p in _ATOMIC_PUT for p in protocols)


def _move(fs: Any, source: str, target: str) -> None:
    """Rename over what is there; HDFS wants that said."""
    if hasattr(fs, "replace"):
        fs.replace(source, target)
    else:
        fs.mv(source, target)
