"""Versions on this machine: whole, verified bundle folders by digest, in a bounded space; they outlive the registry.

A bundle's content is checked once, as it enters; the folder then appears by one rename and is never written again.
What was used longest ago leaves first; what is pinned, or held by a process that lives, stays. Leaving is a rename
too: files that somebody has mapped live on until they are let go.

    bundles/DIGEST/...   used/DIGEST (mtime: last use; locked while held)   pinned/DIGEST   names/REGISTRY/NAME.json
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.data.atomic import write_text
from penstock.data.stores import storing
from penstock.registry import bundles, settings
from penstock.registry.faults import RegistryLost
from penstock.registry.versions import Name, Version

#: What was asked for so recently is not taken away between its being found and its being held.
GRACE_S = 60.0
#: What a killed process left half fetched or half removed.
_STALE_S = 86_400.0


class Held:
    """A bundle that eviction spares as long as this object, or the process, lives. A context manager too."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class Cache:
    """`folder`: where; `limit_bytes`: how much. Any number of processes may share it."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = folder if folder is not None else settings.cache_folder()
        self.limit_bytes = limit_bytes if limit_bytes is not None else settings.cache_bytes()

    def find(self, digest: str) -> Path | None:
        """The folder of a bundle that is here; that counts as a use."""
        place = self._bundle(digest)
        if not (place / bundles.MANIFEST).is_file():
            return None
        self._touch(digest)
        return place

    def fill(self, version: Version, get: Callable[[str, Path], None]) -> Path:
        """The folder of a version, fetched by `get(sha256, target)` where it is not here yet.

        Raises `RegistryLost` where a blob is missing or damaged, `DataError` on a full disk: then nothing has appeared.
        """
        found = self.find(version.digest)
        if found is None:
            with storing(str(self.folder)):
                found = self._enter(version.digest, version.files, get)
        self.keep(version.digest, bool(version.pinned))
        self.evict()
        return found

    def hold(self, digest: str) -> Held | None:
        """Keep a bundle that is here from leaving; None where it is not here."""
        lock = self._touch(digest, keep_open=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        place = self._bundle(digest)
        if not (place / bundles.MANIFEST).is_file():
            os.close(lock)
            return None
        return Held(place, lock)

    def keep(self, digest: str, pinned: bool) -> None:
        """Pin a bundle on this machine, or let it be evicted again."""
        marker = self.folder / "pinned" / digest
        if pinned:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        else:
            marker.unlink(missing_ok=True)

    def evict(self) -> list[str]:
        """Bring the cache below its limit if that can be; the digests that left."""
        sizes = {place.name: _size(place) for place in self._bundles()}
        taken, gone = sum(sizes.values()), []
        for digest in sorted(sizes, key=self._used_at):
            if taken <= self.limit_bytes:
                break
            if self._leave(digest):
                taken -= sizes[digest]
                gone.append(digest)
        for left in (*self.folder.glob("bundles/.gone-*"), *self.folder.glob("bundles/.staged-*")):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left, ignore_errors=True)
        return gone

    def discard(self, digest: str) -> None:
        """Take a damaged bundle out, whoever holds it: the next who asks gets it anew. Never fails."""
        aside = self._bundle(digest).with_name(f".gone-{secrets.token_hex(6)}")
        with suppress(OSError):
            self._bundle(digest).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    # --- what names meant ---

    def remember(self, registry: str, name: Name, version: Version) -> None:
        """Note what a name means, for when the registry does not answer. Never fails."""
        note, text = self._note(registry, name), version.to_json()
        with suppress(OSError):
            if not note.is_file() or note.read_text(encoding="utf-8") != text:
                write_text(note, text)

    def recall(self, registry: str, name: Name) -> Version | None:
        """What a name meant when the registry last answered."""
        try:
            return Version.from_json(self._note(registry, name).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def forget(self, registry: str, name: Name) -> None:
        """A name means nothing any more."""
        with suppress(OSError):
            self._note(registry, name).unlink()

    # --- inside ---

    def _bundle(self, digest: str) -> Path:
        return self.folder / "bundles" / digest

    def _bundles(self) -> list[Path]:
        folder = self.folder / "bundles"
        return [p for p in folder.iterdir() if not p.name.startswith(".")] if folder.is_dir() else []

    def _note(self, registry: str, name: Name) -> Path:
        which = f"@{name.alias}" if name.alias else f"#{name.number}"
        of = hashlib.sha256(registry.encode()).hexdigest()[:16]
        return self.folder / "names" / of / f"{name.model}{which}.json"

    def _touch(self, digest: str, keep_open: bool = False) -> int:
        used = self.folder / "used" / digest
        with storing(str(self.folder)):
            used.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(used, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.utime(handle)
        if not keep_open:
            os.close(handle)
            return -1
        return handle

    def _used_at(self, digest: str) -> float:
        try:
            return (self.folder / "used" / digest).stat().st_mtime
        except OSError:
            return 0.0

    def _enter(self, digest: str, files: Mapping[str, tuple[str, int]], get: Callable[[str, Path], Any]) -> Path:
        place = self._bundle(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = place.with_name(f".staged-{secrets.token_hex(6)}")
        staged.mkdir()
        try:
            for path, (sha256, _) in files.items():
                if not bundles.is_inside(path):
                    raise RegistryLost(f"the registry names a file outside the bundle: {path}", code="REG006")
                target = staged / path
                target.parent.mkdir(parents=True, exist_ok=True)
                get(sha256, target)
                target.chmod(0o444)
            found = bundles.digest_of({path: sha256 for path, (sha256, _) in files.items()})
            if found != digest:
                said = f"the registry's list of files is not that of the bundle {digest[:12]}"
                raise RegistryLost(said, "were its rows changed by hand?", "REG006")
            self._touch(digest)
            try:
                staged.rename(place)
            except OSError:
                if not (place / bundles.MANIFEST).is_file():  # else another process was first
                    raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return place

    def _leave(self, digest: str) -> bool:
        """Take a bundle out unless somebody needs it."""
        if (self.folder / "pinned" / digest).exists() or time.time() - self._used_at(digest) < GRACE_S:
            return False
        used = self.folder / "used" / digest
        handle = os.open(used, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside = self._bundle(digest).with_name(f".gone-{secrets.token_hex(6)}")
            self._bundle(digest).rename(aside)
        except OSError:  # held, or gone already
            return False
        finally:
            os.close(handle)
        shutil.rmtree(aside, ignore_errors=True)
        return True


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
