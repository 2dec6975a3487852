"""The format of a bundle: a folder of files that `manifest.json` lists with their SHA-256, written last.

A manifest of an older format is migrated step by step as it is read; a newer one is refused. docs/models.md describes
what stands in it. Nothing here knows how a model is trained or scored.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from penstock import __version__
from penstock.registry.faults import BundleError

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
#: The ONNX graph of a bundle that has one.
GRAPH = "dense.onnx"
#: Rows that a host warms up with, in the form in which it is asked, and how many they are at most.
WARMUP, WARMUP_ROWS = "warmup.parquet", 64
#: A manifest beyond this is no manifest.
MANIFEST_BYTES = 64 << 20


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in today's format. Raises `BundleError` where there is none, or one of a newer Penstock."""
    hint = "an output of type 'model' writes bundles"
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        said = f"{folder} is not a model bundle: it has no {MANIFEST}"
        raise BundleError(
            said if folder.exists() else f"there is no model bundle at {folder}", hint, "TRAIN010"
        ) from None
    except OSError as error:
        raise BundleError(
            f"the manifest of the model bundle {folder} cannot be read: {error}", hint, "TRAIN010"
        ) from None
    return parse_manifest(text, str(folder))


def parse_manifest(text: bytes | str, where: str) -> dict[str, Any]:
    """What `read_manifest` makes of a manifest's text; `where` names the bundle in errors."""
    hint = "an output of type 'model' writes bundles"
    try:
        if len(text) > MANIFEST_BYTES:
            raise ValueError(f"it has {len(text):,} bytes")
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"the manifest of the model bundle {where} cannot be read: {error}", hint, "TRAIN010"
        ) from None
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise BundleError(f"the manifest of {where} has no format_version", hint, "TRAIN010")
    if found > FORMAT_VERSION:
        raise BundleError(
            f"the model bundle {where} is of format {found}; this Penstock reads up to {FORMAT_VERSION}",
            f"it was written by a newer Penstock than this one ({__version__}): upgrade",
            "TRAIN011",
        )
    migrated = dict(manifest)
    try:
        for step in range(found, FORMAT_VERSION):
            migrated = _MIGRATIONS[step](migrated)
            migrated["format_version"] = step + 1
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"the manifest of {where} is not whole: {error}", hint, "TRAIN010") from None
    return migrated


def _with_warmup(manifest: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2: rows to warm up with came in; older bundles have none."""
    return {**manifest, "warmup": None}


_MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_warmup}


def format_of(folder: Path) -> int:
    """The format that the manifest in `folder` is written in, whatever it is migrated to."""
    return int(json.loads((folder / MANIFEST).read_bytes())["format_version"])


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `BundleError` where a listed file is missing, of another size or of another content."""
    for name, stored in files.items():
        path = folder / name
        if not is_inside(name):
            raise BundleError(f"the manifest of {folder} names a file outside it: {name}", code="TRAIN010")
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"the model bundle {folder} lacks its file {name}", "copy the whole folder", "TRAIN010")
        size = path.stat().st_size
        if size != stored["size_bytes"]:
            said = f"{name} in the model bundle {folder} has {size:,} bytes, not {stored['size_bytes']:,}"
            raise BundleError(said, "was it copied whole?", "TRAIN010")
        if sha256_of(path) != stored["sha256"]:
            said = f"{name} in the model bundle {folder} is not the file that was written with it"
            raise BundleError(said, "take the whole folder from one training run", "TRAIN012")


def is_inside(name: str) -> bool:
    """Whether a path of a manifest or an archive stays in its folder, on any system: relative, no `..`, no drive."""
    path = PurePosixPath(name)
    plain = bool(name) and "\\" not in name and "\0" not in name and ":" not in path.parts[0]
    return plain and not path.is_absolute() and ".." not in path.parts and str(path) == name


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """What a manifest says of the files in `folder`, the manifest itself left out."""
    return {
        path.relative_to(folder).as_posix(): {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def seal(staged: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest` with the list of files into `staged`, and make that `folder`; what was there is replaced."""
    whole = {"format_version": FORMAT_VERSION, "warmup": None, **manifest, "files": list_files(staged)}
    write_manifest(staged, whole)
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(staged, folder)  # noqa: PTH104  a folder into its place, whole


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """The manifest as `seal` writes it: strict JSON."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def digest_of(files: Mapping[str, str]) -> str:
    """The digest of a bundle: SHA-256 over `SHA256 NUL PATH LF` a file, the manifest too, in order of the paths' bytes.

    `files`: path -> SHA-256 in hex.
    """
    whole = hashlib.sha256()
    for path in sorted(files, key=str.encode):
        whole.update(f"{files[path]}\0{path}\n".encode())
    return whole.hexdigest()


def digest_of_folder(folder: Path) -> str:
    """The digest of the bundle in `folder`, trusting the manifest for its files (`check_files` looks at those)."""
    files = {name: str(stored["sha256"]) for name, stored in read_manifest(folder)["files"].items()}
    return digest_of({**files, MANIFEST: sha256_of(folder / MANIFEST)})


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
