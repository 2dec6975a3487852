"""Versions as rows: what is asked of the database, a question a function. Each runs in its caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from penstock.errors import did_you_mean
from penstock.registry import bundles
from penstock.registry.faults import SweptError, UnknownVersion
from penstock.registry.tables import aliases, models, version_files, versions
from penstock.registry.versions import Name, Version, iso


def numbered(db: Connection, name: Name) -> int:
    """The number behind a name. Raises `UnknownVersion` (REG002, REG003) with what there is."""
    if name.number:
        if db.execute(_version(name.model, name.number).with_only_columns(versions.c.number)).first():
            return name.number
        require_model(db, name.model)
        last = db.execute(sa.select(models.c.last_number).where(models.c.name == name.model)).scalar_one()
        raise UnknownVersion(
            f"model '{name.model}' has no version {name.number}", f"its newest is {last}: penstock models ls", "REG003"
        )
    found = db.execute(
        sa.select(aliases.c.number).where(aliases.c.model == name.model, aliases.c.alias == name.alias)
    ).scalar()
    if found is not None:
        return int(found)
    require_model(db, name.model)
    known = db.execute(sa.select(aliases.c.alias).where(aliases.c.model == name.model)).scalars().all()
    otherwise = f"penstock models alias {name.model}/NUMBER {name.alias} sets it"
    said = f"model '{name.model}' has no alias '{name.alias}'"
    raise UnknownVersion(said, did_you_mean(name.alias, known, otherwise), "REG003")


def require_model(db: Connection, model: str) -> None:
    """Raises `UnknownVersion` (REG002) where nothing was ever pushed under this name."""
    if db.execute(sa.select(models.c.name).where(models.c.name == model)).first() is None:
        known = db.execute(sa.select(models.c.name)).scalars().all()
        otherwise = f"the models are {', '.join(sorted(known)[:10])}" if known else "penstock models push brings one in"
        raise UnknownVersion(f"there is no model '{model}'", did_you_mean(model, known, otherwise), "REG002")


def load(db: Connection, model: str, number: int) -> Version:
    """A version that is there, swept or not."""
    row = db.execute(_version(model, number)).one()
    return _as_version(db, row)


def usable(db: Connection, name: Name) -> Version:
    """The version behind a name, its files still there. Raises `UnknownVersion`, or `SweptError` (REG009)."""
    version = load(db, name.model, numbered(db, name))
    if version.swept_at:
        raise SweptError(
            f"the files of {version.uri} were removed by gc at {version.swept_at}",
            "take another version: penstock models ls; pins keep one for good",
            "REG009",
        )
    return version


def all_versions(db: Connection, model: str = "") -> list[Version]:
    """Every version, by model, newest first."""
    asked = sa.select(versions).order_by(versions.c.model, versions.c.number.desc())
    if model:
        asked = asked.where(versions.c.model == model)
    return [_as_version(db, row, with_files=False) for row in db.execute(asked)]


def _version(model: str, number: int) -> sa.Select[Any]:
    return sa.select(versions).where(versions.c.model == model, versions.c.number == number)


def _as_version(db: Connection, row: Row[Any], with_files: bool = True) -> Version:
    own = [version_files.c.model == row.model, version_files.c.number == row.number]
    files: Sequence[Row[Any]] = db.execute(sa.select(version_files).where(*own)).all() if with_files else ()
    named = db.execute(
        sa.select(aliases.c.alias).where(aliases.c.model == row.model, aliases.c.number == row.number)
    ).scalars()
    return Version(
        name=row.model,
        number=row.number,
        digest=row.digest,
        manifest=bundles.parse_manifest(row.manifest, f"models:/{row.model}/{row.number}"),
        files={f.path: (f.sha256, f.size_bytes) for f in files},
        size_bytes=row.size_bytes,
        pushed_at=iso(row.pushed_at),
        pushed_by=row.pushed_by,
        metrics=json.loads(row.metrics),
        lineage=json.loads(row.lineage),
        proof=json.loads(row.proof),
        tags=json.loads(row.tags),
        notes=row.notes,
        aliases=tuple(sorted(named)),
        pinned=row.pinned,
        swept_at=iso(row.swept_at),
    )
