"""How a bundle becomes a version: blobs first, then rows in one transaction: a crash leaves nothing half.

1. In one transaction each file's blob row is taken out of gc's reach: `dead_since` is cleared, an upload is noted.
2. Blobs that are not there are written. Whether one is there is asked of the store, after 1: gc deletes a file while it
   holds that blob's row, so either it came before 1 and the file is missed, or after and it sees the upload.
3. In one transaction the uploads are found still noted, the model's next number is taken, and the rows come in.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from penstock.registry import bundles
from penstock.registry.blobs import Blobs
from penstock.registry.database import Database
from penstock.registry.faults import PushError, RegistryLost
from penstock.registry.tables import blobs as blob_rows
from penstock.registry.tables import models, uploads, version_files, versions
from penstock.registry.versions import who

#: An upload that nobody moved on for so long belongs to a push that was killed.
UPLOAD_S = 3600.0
_MOVED_ON_S = 60.0
_MOST_METRICS = 1 << 20
_ONE_OBJECT = "one JSON object of numbers, such as the metrics.json of a flow's evaluate step"


@dataclass(frozen=True)
class Described:
    """What is recorded beside a bundle. `metrics` are added to the manifest's; `lineage`: None is the manifest's."""

    tags: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] | None = None
    proof: Mapping[str, Any] = field(default_factory=dict)


def push(db: Database, store: Blobs, folder: Path, name: str, described: Described) -> int:
    """Store the bundle in `folder` as the next version of `name`; return its number.

    Raises `BundleError` where the bundle is not whole, `DataError` on a full disk, `RegistryLost`.
    """
    manifest = bundles.read_manifest(folder)
    bundles.check_files(folder, manifest["files"])
    text = (folder / bundles.MANIFEST).read_text(encoding="utf-8")
    if bundles.format_of(folder) != bundles.FORMAT_VERSION:
        raise PushError(f"{folder} is of an older format", "migrate the copy that is pushed", "REG007")
    paths = {path: folder / path for path in (*manifest["files"], bundles.MANIFEST)}
    files = {path: (bundles.sha256_of(place), place.stat().st_size) for path, place in paths.items()}
    upload = _Upload(db, secrets.token_hex(8), dict(files.values()))
    try:
        upload.begin()
        for path, (sha256, _) in files.items():
            store.put(paths[path], sha256, upload.alive)
        with db.write() as rows:
            upload.end(rows)
            number = _next_number(rows, name)
            rows.execute(versions.insert().values(model=name, number=number, **_row(text, manifest, files, described)))
            listed = [
                {"model": name, "number": number, "path": path, "sha256": sha256, "size_bytes": size}
                for path, (sha256, size) in files.items()
            ]
            rows.execute(version_files.insert(), listed)
    except BaseException:
        upload.abandon()
        raise
    return number


def _row(
    text: str, manifest: Mapping[str, Any], files: Mapping[str, tuple[str, int]], described: Described
) -> dict[str, Any]:
    metrics = {**manifest.get("metrics", {}), **described.metrics}
    lineage = described.lineage if described.lineage is not None else manifest.get("lineage", {})
    return {
        "digest": bundles.digest_of({path: sha256 for path, (sha256, _) in files.items()}),
        "manifest": text,
        "size_bytes": sum(size for _, size in files.values()),
        "metrics": _document(metrics),
        "lineage": _document(lineage),
        "proof": _document(described.proof),
        "tags": _document(described.tags),
        "notes": described.notes,
        "pushed_at": time.time(),
        "pushed_by": who(),
    }


def _next_number(rows: Connection, name: str) -> int:
    """Consecutive, whoever else pushes: the model's row is locked until the transaction ends."""
    insert_or_leave(rows, models, {"name": name, "last_number": 0, "created_at": time.time()})
    taken = sa.update(models).where(models.c.name == name).values(last_number=models.c.last_number + 1)
    return int(rows.execute(taken.returning(models.c.last_number)).scalar_one())


@dataclass
class _Upload:
    """What one push keeps out of gc's reach while it goes on."""

    db: Database
    push: str
    sizes: Mapping[str, int]
    moved_on: float = 0.0

    def begin(self) -> None:
        with self.db.write() as rows:
            # In one order, so that two pushes of the same files cannot wait for one another.
            for sha256 in sorted(self.sizes):
                wanted = {"sha256": sha256, "size_bytes": self.sizes[sha256]}
                _update_duplicates(rows, blob_rows, wanted, {"dead_since": None})
                rows.execute(uploads.insert().values(push=self.push, sha256=sha256, until=time.time() + UPLOAD_S))
        self.moved_on = time.monotonic()

    def alive(self) -> None:
        if time.monotonic() - self.moved_on > _MOVED_ON_S:
            with self.db.write() as rows:
                rows.execute(sa.update(uploads).where(uploads.c.push == self.push).values(until=time.time() + UPLOAD_S))
            self.moved_on = time.monotonic()

    def end(self, rows: Connection) -> None:
        ended = rows.execute(sa.delete(uploads).where(uploads.c.push == self.push)).rowcount
        if ended != len(self.sizes):
            said = "this push slept for so long that gc took it for dead"
            raise PushError(said, "push again", "REG007")

    def abandon(self) -> None:
        """What was uploaded is left to gc; a registry that is gone says so by itself."""
        try:
            with self.db.write() as rows:
                rows.execute(sa.delete(uploads).where(uploads.c.push == self.push))
        except RegistryLost:
            return


def _insert(rows: Connection, table: sa.Table, values: Mapping[str, Any]) -> Any:
    dialect = sqlite if rows.dialect.name == "sqlite" else postgresql
    return dialect.insert(table).values(**values)


def insert_or_leave(rows: Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert a row unless one of its key is there."""
    rows.execute(_insert(rows, table, values).on_conflict_do_nothing())


def _update_duplicates(
    rows: Connection, table: sa.Table, values: Mapping[str, Any], changed: Mapping[str, Any]
) -> None:
    key = [column.name for column in table.primary_key]
    rows.execute(_insert(rows, table, values).on_conflict_do_update(index_elements=key, set_=dict(changed)))


def _document(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, default=str)


def parse_tags(given: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` texts. Raises `PushError` (REG007) for others."""
    found = {}
    for text in given:
        key, mark, value = text.partition("=")
        if not mark or not key:
            raise PushError(f"the tag '{text}' is not KEY=VALUE", "such as --tag team=ads", "REG007")
        found[key] = value
    return found


def read_metrics(path: Path) -> dict[str, int | float]:
    """The numbers of one JSON object, as a flow's `evaluate` writes them. Raises `PushError` (REG007) for others."""
    try:
        text = path.read_bytes() if path.stat().st_size <= _MOST_METRICS else b""
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise PushError(f"the metrics in {path} cannot be read: {error}", _ONE_OBJECT, "REG007") from None
    if not isinstance(found, dict):
        raise PushError(f"{path} holds no JSON object", _ONE_OBJECT, "REG007")
    return {name: v for name, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
