"""Ed25519 keys: the one that this user's exports are signed with, and those that imports trust."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.registry.faults import ArchiveError

OWN, SUFFIX = "own.key", ".pub"


def own_key(folder: Path) -> Ed25519PrivateKey:
    """This user's key, made when it is first asked for (0600; `own.pub` beside it is for those who import)."""
    path = folder / OWN
    if path.is_file():
        return private_key(path)
    made = Ed25519PrivateKey.generate()
    text = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = folder / f".{OWN}.{os.getpid()}"
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text)
    try:
        os.link(aside, path)  # another process may have been first: its key is the one then
    except FileExistsError:
        return private_key(path)
    finally:
        aside.unlink()
    (folder / "own.pub").write_bytes(_public_text(made.public_key()))
    return made


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file. Raises `ArchiveError` (REG011)."""
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ArchiveError(
            f"the signing key {path} cannot be read: {error}", "an ed25519 key, PEM", "REG011"
        ) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise ArchiveError(f"{path} is no ed25519 key", "openssl genpkey -algorithm ed25519", "REG011")
    return found


def trusted(folder: Path, more: Path | None = None) -> list[Ed25519PublicKey]:
    """The keys in a folder's `*.pub` files, or the one in `more` alone. Raises `ArchiveError` (REG011)."""
    files = [more] if more is not None else sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    found = []
    for path in files:
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ArchiveError(f"the key {path} cannot be read: {error}", "an ed25519 public key", "REG011") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ArchiveError(f"{path} is no ed25519 public key", "openssl pkey -pubout", "REG011")
        found.append(key)
    return found


def signer(content: bytes, signature: bytes, keys: list[Ed25519PublicKey]) -> str:
    """The name of the key that signed `content`. Raises `ArchiveError` (REG012) where none of these did."""
    for key in keys:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return name_of(key)
    hint = "put the exporter's own.pub beside your keys as NAME.pub, or name it with --key"
    said = "no key that is trusted here signed this archive" if keys else "no key is trusted here yet"
    raise ArchiveError(said, hint, "REG012")


def name_of(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _public_text(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
