"""What nobody needs any more leaves in two steps: a tombstone first, and after `grace_s` the files. Numbers stay taken.

Marked, and kept: what an alias names or named last before, pins, what running hosts hold, the newest `keep` of each
model, and all that a kept version was trained on from. The mark and every row that follows from it are one transaction
in which nobody else writes, the flow caches of this machine included: they are locked first and let go last, so no
flow can take over a result of a version that is going. Blobs go one by one, each while nobody writes (see
`pushing.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from penstock.registry import flow_caches
from penstock.registry.blobs import Blobs
from penstock.registry.database import Database
from penstock.registry.faults import UnknownVersion
from penstock.registry.tables import alias_changes, aliases, leases, uploads, version_files, versions
from penstock.registry.tables import blobs as blob_rows
from penstock.registry.versions import SCHEME, parse

Number = tuple[str, int]
DAY_S = 86_400.0


@dataclass(frozen=True)
class Policy:
    """`keep`: newest versions a model; `grace_s`: how long a version lies with a tombstone before its files go."""

    keep: int = 5
    grace_s: float = 7 * DAY_S


@dataclass
class Swept:
    """What gc did, or would do. Sizes are of files that no other version needs."""

    dry_run: bool
    kept: dict[str, str] = field(default_factory=dict)  # uri -> why
    tombstoned: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    blobs: int = 0
    freed_bytes: int = 0
    later_bytes: int = 0  # of what has a tombstone and waits
    flow_results: int = 0

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def gc(
    db: Database,
    store: Blobs,
    policy: Policy,
    dry_run: bool = True,
    now: float | None = None,
    between: Callable[[], None] = lambda: None,
) -> Swept:
    """Mark and sweep. `between` is called where no transaction is open. Raises `RegistryLost`."""
    moment = time.time() if now is None else now
    if dry_run:
        with db.read() as rows:
            found, _ = _marked(rows, policy, moment, dry_run=True)
            doomed = _doomed(rows, found, policy, moment)
            found.blobs, found.freed_bytes = len(doomed), sum(doomed.values())
            found.later_bytes = _only_theirs(rows, [*found.tombstoned, *found.waiting])
            return found
    with flow_caches.locked() as caches, db.write(alone=True) as rows:
        found, going = _marked(rows, policy, moment, dry_run=False)
        _bury(rows, going, policy, moment)
        found.flow_results = caches.forget(_digests_gone(rows))
        found.later_bytes = _only_theirs(rows, [*found.tombstoned, *found.waiting])
        dead = [row.sha256 for row in rows.execute(_dead(policy, moment))]
    for sha256 in dead:
        between()
        size = _remove(db, store, sha256, policy, moment)
        found.blobs += size is not None
        found.freed_bytes += size or 0
    return found


# --- mark ---


def _marked(rows: Connection, policy: Policy, now: float, dry_run: bool) -> tuple[Swept, list[Row[Any]]]:
    """Who stays and why, who gets a tombstone, and the rows of those whose time is up. Writes tombstones."""
    found = Swept(dry_run)
    there = rows.execute(sa.select(versions).where(versions.c.swept_at.is_(None))).all()
    reasons = _reasons(rows, there, policy, now)
    going = []
    for row in sorted(there, key=lambda r: (r.model, r.number)):
        uri = f"{SCHEME}{row.model}/{row.number}"
        why = reasons.get((row.model, row.number))
        if why is not None:
            found.kept[uri] = why
            if row.tombstone_at is not None and not dry_run:
                rows.execute(_own(sa.update(versions), row).values(tombstone_at=None))
        elif row.tombstone_at is None and policy.grace_s > 0:
            found.tombstoned.append(uri)
            if not dry_run:
                rows.execute(_own(sa.update(versions), row).values(tombstone_at=now))
        elif row.tombstone_at is None or row.tombstone_at <= now - policy.grace_s:
            found.swept.append(uri)
            going.append(row)
        else:
            found.waiting.append(uri)
    return found, going


def _reasons(rows: Connection, there: Iterable[Row[Any]], policy: Policy, now: float) -> Mapping[Number, str]:
    """Every version that must stay, with the first reason."""
    known = {(row.model, row.number): row for row in there}
    reasons: dict[Number, str] = {}
    for number, why in _roots(rows, known, policy, now):
        if number in known:
            reasons.setdefault(number, why)
    by_digest: dict[str, list[Number]] = {}
    for number, row in known.items():
        by_digest.setdefault(row.digest, []).append(number)
    waiting = list(reasons)
    while waiting:
        child = waiting.pop()
        for number in _parents(known[child], by_digest):
            if number in known and number not in reasons:
                reasons[number] = f"{child[0]}/{child[1]} was trained on from it"
                waiting.append(number)
    return reasons


def _roots(
    rows: Connection, known: Mapping[Number, Row[Any]], policy: Policy, now: float
) -> Iterator[tuple[Number, str]]:
    for row in known.values():
        if row.pinned:
            yield (row.model, row.number), f"pinned by {row.pinned}"
    present: dict[tuple[str, str], int] = {}
    for row in rows.execute(sa.select(aliases)):
        present[row.model, row.alias] = row.number
        yield (row.model, row.number), f"alias {row.alias}"
    before: dict[tuple[str, str], int] = {}
    for row in rows.execute(sa.select(alias_changes).order_by(alias_changes.c.id)):
        if row.old_number is not None and row.old_number != present.get((row.model, row.alias)):
            before[row.model, row.alias] = row.old_number
    for (model, alias), number in before.items():
        if (model, alias) in present:
            yield (model, number), f"alias {alias} goes back to it"
    for row in rows.execute(sa.select(leases).where(leases.c.until > now)):
        yield (row.model, row.number), f"held by {row.holder}"
    newest: dict[str, int] = {}
    for own in sorted(known, key=lambda n: (n[0], -n[1])):
        newest[own[0]] = newest.get(own[0], 0) + 1
        if newest[own[0]] <= policy.keep:
            yield own, f"one of the newest {policy.keep}"


def _parents(row: Row[Any], by_digest: Mapping[str, list[Number]]) -> Iterator[Number]:
    """What a version was trained on from: by name, or by the digest of its bundle."""
    parent = json.loads(row.lineage).get("parent") or ""
    for each in parent if isinstance(parent, list) else [parent]:
        yield from by_digest.get(str(each), ())
        try:
            name = parse(str(each))
        except UnknownVersion:
            continue
        yield name.model, name.number


# --- sweep ---


def _bury(rows: Connection, going: Iterable[Row[Any]], policy: Policy, now: float) -> None:
    """Take the files from versions whose time is up, and note which blobs nothing refers to."""
    rows.execute(sa.delete(uploads).where(uploads.c.until <= now))
    rows.execute(sa.delete(leases).where(leases.c.until <= now))
    for row in going:
        since = row.tombstone_at if row.tombstone_at is not None else now - policy.grace_s
        own = (version_files.c.model == row.model) & (version_files.c.number == row.number)
        theirs = sa.select(version_files.c.sha256).where(own)
        bury = sa.update(blob_rows).where(blob_rows.c.sha256.in_(theirs), blob_rows.c.dead_since.is_(None))
        rows.execute(bury.values(dead_since=since))
        rows.execute(sa.delete(version_files).where(own))
        rows.execute(_own(sa.update(versions), row).values(swept_at=now))
    rows.execute(sa.update(blob_rows).where(_needed()).values(dead_since=None))
    rows.execute(sa.update(blob_rows).where(~_needed(), blob_rows.c.dead_since.is_(None)).values(dead_since=now))


def _needed() -> sa.ColumnElement[bool]:
    """Whether a version or a push under way refers to a blob."""
    return sa.or_(
        sa.exists().where(version_files.c.sha256 == blob_rows.c.sha256),
        sa.exists().where(uploads.c.sha256 == blob_rows.c.sha256),
    )


def _dead(policy: Policy, now: float) -> sa.Select[Any]:
    due = blob_rows.c.dead_since <= now - policy.grace_s
    return sa.select(blob_rows).where(~_needed(), due).order_by(blob_rows.c.sha256)


def _remove(db: Database, store: Blobs, sha256: str, policy: Policy, now: float) -> int | None:
    """Delete one blob while nobody writes, unless a push has come for it since; its size, or None.

    A crash after the file went leaves the row: a push finds no file and writes it again, a later gc removes the row.
    """
    with db.write(alone=True) as rows:
        row = rows.execute(_dead(policy, now).where(blob_rows.c.sha256 == sha256)).first()
        if row is None:
            return None
        store.delete(sha256)
        rows.execute(sa.delete(blob_rows).where(blob_rows.c.sha256 == sha256))
        return int(row.size_bytes)


def _digests_gone(rows: Connection) -> list[str]:
    """Bundles that were versions and are none any more."""
    there = sa.select(versions.c.digest).where(versions.c.swept_at.is_(None))
    gone = sa.select(versions.c.digest).where(versions.c.swept_at.is_not(None), versions.c.digest.not_in(there))
    return list(rows.execute(gone.distinct()).scalars())


def _doomed(rows: Connection, found: Swept, policy: Policy, now: float) -> Mapping[str, int]:
    """What a run would delete: blobs that are dead already, and those that only versions going now need."""
    theirs = _blobs_of_only(rows, found.swept)
    return {row.sha256: int(row.size_bytes) for row in rows.execute(_dead(policy, now))} | dict(theirs)


def _only_theirs(rows: Connection, uris: Iterable[str]) -> int:
    return sum(_blobs_of_only(rows, uris).values())


def _blobs_of_only(rows: Connection, uris: Iterable[str]) -> Mapping[str, int]:
    """Blobs, with sizes, that these versions need and no others."""
    chosen = {(name.model, name.number) for name in map(parse, uris)}
    theirs: dict[str, int] = {}
    others: set[str] = set()
    for row in rows.execute(sa.select(version_files)) if chosen else ():
        if (row.model, row.number) in chosen:
            theirs[row.sha256] = row.size_bytes
        else:
            others.add(row.sha256)
    others.update(rows.execute(sa.select(uploads.c.sha256)).scalars())
    return {sha256: size for sha256, size in theirs.items() if sha256 not in others}


def _own(statement: sa.Update, row: Row[Any]) -> sa.Update:
    return statement.where(versions.c.model == row.model, versions.c.number == row.number)
