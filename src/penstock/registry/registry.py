"""The registry as its users see it: push, resolve, fetch, aliases, pins; a transaction a method."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from penstock.data.stores import local_path
from penstock.errors import RequestError
from penstock.registry import aliases, bundles, generations, pushing, rows, settings, versions
from penstock.registry.blobs import Blobs
from penstock.registry.cache import Cache, Held
from penstock.registry.database import Database
from penstock.registry.faults import RegistryLost, UnknownVersion
from penstock.registry.sweep import Policy, Swept, gc
from penstock.registry.tables import leases
from penstock.registry.tables import settings as setting_rows
from penstock.registry.tables import versions as version_rows
from penstock.registry.versions import Name, Version, parse

_BLOBS = sa.select(setting_rows.c.value).where(setting_rows.c.key == "blobs")
_log = logging.getLogger("penstock.registry")


class Registry:
    """Opened by address: a folder, or the URL of a PostgreSQL database. A context manager; cheap to open.

    `url`: default `$PENSTOCK_REGISTRY`, else this user's own (`settings.py`). `blobs`: where files go, asked once, when
    the registry is made: default a folder beside the SQLite file; PostgreSQL needs one that every host reaches.
    """

    def __init__(self, url: str | Path | None = None, blobs: str | None = None, cache: Cache | None = None) -> None:
        self.database = Database(str(url) if url else settings.registry_url())
        self._blobs_url = blobs or settings.blobs_url()
        self._given_cache = cache

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    @cached_property
    def cache(self) -> Cache:
        return self._given_cache if self._given_cache is not None else Cache()

    @cached_property
    def blobs(self) -> Blobs:
        """The blob store, as the registry knows it for every host. Raises `RequestError` where nobody has said."""
        with self.database.read() as db:
            stored = db.execute(_BLOBS).scalar()
        return Blobs(self._blobs_location(self._first_blobs() if stored is None else stored))

    # --- versions come in ---

    def push(
        self,
        bundle: str | Path,
        name: str,
        *,
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
        notes: str = "",
        proof: Mapping[str, Any] | None = None,
    ) -> Version:
        """Store the bundle in a folder as the next version of `name`, and let `aliases` name it.

        `metrics` are added to the manifest's; `lineage` defaults to it. A bundle of an older format is migrated on
        the way. Raises `BundleError` where the bundle is not whole, `UnknownVersion` for a bad name, `DataError` on a
        full disk.
        """
        versions.check_model(name)
        for alias in aliases:
            versions.check_alias(alias)
        with self.database.write():
            pass  # a registry that is not there yet is made
        described = pushing.Described(tags or {}, notes, metrics or {}, lineage, proof or {})
        with tempfile.TemporaryDirectory(prefix="penstock-push-") as scratch:
            folder = _migrated(local_path(str(bundle)), Path(scratch))
            number = pushing.push(self.database, self.blobs, folder, name, described)
        for alias in aliases:
            self.alias(f"{name}/{number}", alias, f"pushed as {alias}")
        with self.database.read() as db:
            return rows.load(db, name, number)

    # --- and go out ---

    def resolve(self, name: str) -> Version:
        """The version behind `models:/ctr@live` or `models:/ctr/3`.

        Where the registry does not answer, what this machine's cache knows of the name (`remembered`, and a line is
        logged). Raises `UnknownVersion`, `SweptError`, `RegistryLost`.
        """
        wanted, place = parse(name), self.database.name
        try:
            with self.database.read() as db:
                version = rows.usable(db, wanted)
        except UnknownVersion:
            self.cache.forget(place, wanted)
            raise
        except RegistryLost as lost:
            known = self.cache.recall(place, wanted)
            if known is None:
                raise
            _log.warning("%s; %s is version %d, as it was when it last answered", lost.message, wanted, known.number)
            return known
        self.cache.remember(place, wanted, version)
        self.cache.remember(place, Name(version.name, number=version.number), version)
        return version

    def fetch(self, version: Version | str, into: Path | None = None) -> Path:
        """The folder of a version's whole, verified bundle in the cache (`into`: a cache elsewhere). Only to be read.

        A bundle that is in the cache is given without asking the registry. Raises `RegistryLost`, `DataError`.
        """
        found = self.resolve(version) if isinstance(version, str) else version
        cache = Cache(into) if into is not None else self.cache
        return cache.find(found.digest) or cache.fill(found, lambda sha256, target: self.blobs.get(sha256, target))

    def hold(self, version: Version | str) -> Held:
        """`fetch`, and the bundle stays in the cache as long as what comes back, or this process, lives."""
        found = self.resolve(version) if isinstance(version, str) else version
        for _ in range(3):
            self.fetch(found)
            held = self.cache.hold(found.digest)
            if held is not None:
                return held
        raise RegistryLost(f"the cache {self.cache.folder} does not keep {found.uri}", "is it being emptied?", "REG006")

    def list_versions(self, model: str = "") -> list[Version]:
        """Every version (of one model), newest first, without the lists of their files. Raises `UnknownVersion`."""
        with self.database.read() as db:
            if model:
                rows.require_model(db, model)
            return rows.all_versions(db, model)

    def newest(self, model: str) -> str:
        """The name of a model's newest version. Raises `UnknownVersion`."""
        return self.list_versions(versions.check_model(model))[0].uri

    def describe(self, name: str) -> tuple[Version, list[aliases.Move]]:
        """A version, swept ones too, and every move of its model's aliases."""
        wanted = parse(name)
        with self.database.read() as db:
            return rows.load(db, wanted.model, rows.numbered(db, wanted)), aliases.history(db, wanted.model)

    # --- between registries ---

    def export(self, name: str, target: Path, key: Path | None = None) -> Version:
        """Write a version as one archive, signed with `key` (default: this user's own). Raises `ArchiveError`."""
        from penstock.registry import archive, signing

        version = self.resolve(name)
        own = signing.private_key(key) if key is not None else signing.own_key(settings.keys_folder())
        archive.write(version, self.fetch(version), target, own)
        return version

    def import_(self, source: Path, name: str = "", key: Path | None = None, aliases: Sequence[str] = ()) -> Version:
        """Push what an archive holds as the next version of its model (or of `name`), if a trusted key signed it.

        `key`: the one public key to trust; default those in the folder of keys. Raises `ArchiveError`.
        """
        from penstock.registry import archive, signing

        with tempfile.TemporaryDirectory(prefix="penstock-import-") as scratch:
            folder = Path(scratch) / "bundle"
            found = archive.read(source, folder, signing.trusted(settings.keys_folder(), key))
            from_ = {key: found[key] for key in ("name", "version", "digest", "signed_by", "pushed_at", "pushed_by")}
            return self.push(
                folder, name or found["name"], aliases=aliases, tags=found["tags"], metrics=found["metrics"],
                lineage={**found["lineage"], "imported": from_}, notes=found["notes"], proof=found["proof"],
            )  # fmt: skip

    # --- aliases, pins, leases ---

    def alias(self, name: str, alias: str, why: str = "", generation: int = 0, chain: str = "") -> Version:
        """Let `alias` name the version behind `name`. With `generation`, of a chain that learns online (by default the
        model's): raises `Superseded` (LIVE011) where a later one has begun."""
        with self.database.write() as db:
            if generation:
                generations.require(db, chain or parse(name).model, generation)
            return aliases.move(db, parse(name), alias, why)

    def drop_alias(self, model: str, alias: str, why: str = "") -> None:
        """Take an alias away."""
        with self.database.write() as db:
            aliases.remove(db, model, alias, why)

    def rollback(self, model: str, alias: str = versions.LIVE, number: int = 0, why: str = "") -> Version:
        """Return an alias to an earlier version of its own, by default the one before."""
        versions.check_model(model)
        with self.database.write() as db:
            return aliases.rollback(db, model, alias, number, why)

    def pin(self, name: str, why: str) -> Version:
        """Keep a version from gc for good, `why` on record; "" lets it go again."""
        with self.database.write() as db:
            version = rows.usable(db, parse(name))
            own = (version_rows.c.model == version.name) & (version_rows.c.number == version.number)
            said = f"{versions.who()}: {why}" if why else ""
            db.execute(sa.update(version_rows).where(own).values(pinned=said, tombstone_at=None))
            return rows.load(db, version.name, version.number)

    def lease(self, holder: str, held: Sequence[Version], seconds: float) -> None:
        """A running host says what it runs: gc keeps these for so long. Call it again in time."""
        until = time.time() + seconds
        with self.database.write() as db:
            db.execute(sa.delete(leases).where(leases.c.holder == holder))
            for version in {(v.name, v.number) for v in held}:
                db.execute(leases.insert().values(holder=holder, model=version[0], number=version[1], until=until))

    # --- what nobody needs ---

    def gc(self, policy: Policy | None = None, dry_run: bool = True) -> Swept:
        """What could go, and with `dry_run=False` make it go. Several transactions (`sweep.py`)."""
        return gc(self.database, self.blobs, policy or Policy(), dry_run)

    # --- inside ---

    def _first_blobs(self) -> str:
        """Settle where files go: the first host to ask decides for all."""
        if self._blobs_url or self.database.is_sqlite:
            with self.database.write() as db:
                pushing.insert_or_leave(db, setting_rows, {"key": "blobs", "value": self._blobs_url})
                return str(db.execute(_BLOBS).scalar_one())
        hint = f"--blobs URL or {settings.BLOBS}: a folder or an address (s3://...) that every host reaches"
        raise RequestError(f"the registry {self.database.name} has no place for files yet", hint, "REG004")

    def _blobs_location(self, stored: str) -> str:
        if stored:
            return stored
        assert self.database.file is not None
        return str(self.database.file.parent / "blobs")


def _migrated(folder: Path, scratch: Path) -> Path:
    """The bundle in today's format: itself, or a copy."""
    manifest = bundles.read_manifest(folder)
    if bundles.format_of(folder) == bundles.FORMAT_VERSION:
        return folder
    bundles.check_files(folder, manifest["files"])
    copy = scratch / "bundle"
    for path in manifest["files"]:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, copy / path)
    bundles.write_manifest(copy, manifest)
    return copy
