"""Whole outputs on object stores, HDFS and any other fsspec filesystem.

None of them can swap folders, so a folder there is what `_penstock.json` lists. New files get names never used
before; the listing is written when all are up; only then do the old files go. A reader sees the old or the new.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from penstock.data.stores import MANIFEST, MANIFEST_VERSION, Live, filesystem, read_manifest, write_manifest

#: Filesystems where an upload appears only when it is complete.
_ATOMIC_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def put_file(source: Path, url: str) -> None:
    """Upload one file so that `url` is the old or the new, never a part."""
    fs, path = filesystem(url)
    _put(fs, source, path)


def replace(url: str, staging: Path, stem: str) -> None:
    """Make the files below `staging` the folder's content."""
    fs, folder = filesystem(url)
    old = set(fs.find(folder)) if fs.exists(folder) else set()
    live = []
    for file in sorted(p for p in staging.rglob("*") if p.is_file()):
        name = file.relative_to(staging).as_posix()
        parent, slash, last = name.rpartition("/")
        path = f"{parent}{slash}{stem}-{last}"
        _put(fs, file, f"{folder}/{path}")
        live.append(Live(path, name, file.stat().st_size))
    _swap_manifest(fs, folder, live)
    for path in old - {f"{folder}/{MANIFEST}", f"{folder}/{MANIFEST}".lstrip("/")}:
        fs.rm_file(path)


def append(url: str, files: list[tuple[Path, str]]) -> None:
    """Add files under the names given; where the folder has a listing they are added to it last."""
    fs, folder = filesystem(url)
    listing = f"{folder}/{MANIFEST}"
    added = []
    for file, name in files:
        _put(fs, file, f"{folder}/{name}")
        added.append(Live(name, name, file.stat().st_size))
    if fs.exists(listing):
        new = {live.path for live in added}
        kept = [live for live in read_manifest(fs.cat_file(listing), url) if live.path not in new]
        _swap_manifest(fs, folder, kept + added)


def live_files(fs: Any, folder: str) -> list[Live] | None:
    """What the folder's `_penstock.json` lists; None where there is none."""
    listing = f"{folder}/{MANIFEST}"
    if not fs.exists(listing):
        return None
    return read_manifest(fs.cat_file(listing), folder)


def fetch(url: str, folder: Path) -> Path:
    """Copy a remote folder's live files into `folder`, under the names they were written with."""
    fs, path = filesystem(url)
    live = live_files(fs, path)
    if live is None:
        found = fs.find(path)
        root = path.strip("/")
        live = [Live(p.strip("/")[len(root) + 1 :], p.strip("/")[len(root) + 1 :], 0) for p in found]
    for file in live:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(f"{path}/{file.path}", str(target))
    return folder


def content_hash(url: str) -> str:
    """SHA-256 over names and bytes, equal to the local one of the same files."""
    fs, path = filesystem(url)
    if not fs.exists(path):
        return ""
    whole = hashlib.sha256()
    live = None if fs.isfile(path) else live_files(fs, path)
    if fs.isfile(path):
        files = [("", path)]
    elif live is not None:
        files = sorted((file.name, f"{path}/{file.path}") for file in live)
    else:
        root = path.strip("/")
        files = sorted((p.strip("/")[len(root) + 1 :], p) for p in fs.find(path))
    for name, file in files:
        digest = hashlib.sha256()
        with fs.open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        whole.update(len(name.encode()).to_bytes(8, "little") + name.encode() + digest.digest())
    return whole.hexdigest()


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
    client = getattr(fs, "client", None)
    if client is not None and hasattr(client, "rename"):
        client.rename(source, target, overwrite=True)
    else:
        fs.mv(source, target)
