"""A version as one signed file: a plain tar of `version.json`, its signature, and the bundle's files.

`version.json` lists every file's size and SHA-256, so one ed25519 signature vouches for all. Importing reads the two
first members, verifies, and only then writes: exactly the files that are listed, each no longer than it says, checked
as it goes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.data.stores import storing
from penstock.registry import bundles, signing
from penstock.registry.faults import ArchiveError
from penstock.registry.versions import Version

DOCUMENT, SIGNATURE, FILES = "version.json", "version.sig", "files/"
FORMAT = "penstock-model/1"
_DOCUMENT_BYTES = 64 << 20
_CHUNK_BYTES = 4 << 20


def write(version: Version, folder: Path, target: Path, key: Ed25519PrivateKey) -> None:
    """Write the archive of a version whose bundle is in `folder`; `target` appears whole or not at all."""
    document = {
        "format": FORMAT,
        "name": version.name,
        "version": version.number,
        "digest": version.digest,
        "files": {path: {"sha256": sha, "size_bytes": size} for path, (sha, size) in version.files.items()},
        "metrics": dict(version.metrics),
        "lineage": dict(version.lineage),
        "proof": dict(version.proof),
        "tags": dict(version.tags),
        "notes": version.notes,
        "pushed_at": version.pushed_at,
        "pushed_by": version.pushed_by,
    }
    text = json.dumps(document, ensure_ascii=False, sort_keys=True).encode()
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with storing(str(target)), aside.open("xb") as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add(tar, DOCUMENT, text)
                _add(tar, SIGNATURE, key.sign(text))
                for path in sorted(version.files):
                    with (folder / path).open("rb") as file:
                        tar.addfile(_member(FILES + path, version.files[path][1]), file)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def read(source: Path, folder: Path, keys: list[Ed25519PublicKey]) -> dict[str, Any]:
    """Verify an archive and unpack its bundle as `folder`; its document, with `signed_by`.

    Raises `ArchiveError`: REG012 for a signature that nobody trusted gave, REG013 for what is not whole, REG014 for
    what is not safe to unpack. Nothing is written before the signature has been verified.
    """
    try:
        with storing(str(source), "read"), tarfile.open(source, mode="r:") as tar:
            text = _first(tar, DOCUMENT, _DOCUMENT_BYTES)
            signature = _first(tar, SIGNATURE, 64)
            signed_by = signing.signer(text, signature, keys)
            document = _document(text)
            folder.mkdir(parents=True)
            _unpack(tar, folder, document["files"])
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"{source} is no archive of a version: {error}", "was it copied whole?", "REG013") from error
    return {**document, "signed_by": signed_by}


def _unpack(tar: tarfile.TarFile, folder: Path, files: dict[str, Any]) -> None:
    left = dict(files)
    while (member := tar.next()) is not None:
        path = member.name.removeprefix(FILES)
        _safe(member, path)
        if not member.name.startswith(FILES) or path not in left:
            raise ArchiveError(f"the archive holds '{member.name}', which its list lacks", code="REG014")
        listed = left.pop(path)
        if member.size != listed["size_bytes"]:
            raise ArchiveError(f"'{path}' has {member.size:,} bytes, not {listed['size_bytes']:,}", code="REG013")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None  # a regular file has content
        with target.open("xb") as out:
            found = _copied(source, out)  # type: ignore[arg-type]
        if found != listed["sha256"]:
            raise ArchiveError(f"'{path}' is not the file that was signed", "was the archive changed?", "REG013")
    if left:
        raise ArchiveError(f"the archive lacks '{min(left)}'", "was it copied whole?", "REG013")
    digest = bundles.digest_of({path: str(listed["sha256"]) for path, listed in files.items()})
    if bundles.digest_of_folder(folder) != digest:
        raise ArchiveError("the bundle in the archive is not the one that its list describes", code="REG013")


def _safe(member: tarfile.TarInfo, path: str) -> None:
    """Raises `ArchiveError` (REG014) for anything but a plain file inside the folder."""
    if not member.isreg() or member.issparse():
        raise ArchiveError(f"the archive holds '{member.name}', which is no plain file", "links are refused", "REG014")
    if not bundles.is_inside(path):
        raise ArchiveError(f"the archive holds '{member.name}', a path outside it", code="REG014")


def _first(tar: tarfile.TarFile, name: str, most: int) -> bytes:
    member = tar.next()
    if member is None or member.name != name or not member.isreg() or member.size > most:
        raise ArchiveError(f"this is no archive of a version: it has no {name}", code="REG013")
    source = tar.extractfile(member)
    assert source is not None
    return source.read()


def _document(text: bytes) -> dict[str, Any]:
    found = json.loads(text)
    if found.get("format") != FORMAT:
        said = f"the archive is of the format '{found.get('format')}'; this Penstock reads {FORMAT}"
        raise ArchiveError(said, "update Penstock", "REG013")
    document: dict[str, Any] = found
    return document


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, int(time.time())
    return member


def _copied(source: BinaryIO, out: BinaryIO) -> str:
    whole = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        whole.update(chunk)
        out.write(chunk)
    return whole.hexdigest()
