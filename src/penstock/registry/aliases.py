"""Aliases: names that move from version to version, each move on record (who, when, from, to, why)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from penstock.registry import rows
from penstock.registry.faults import UnknownVersion
from penstock.registry.tables import alias_changes, aliases, versions
from penstock.registry.versions import Name, Version, check_alias, iso, who

#: SQLite and PostgreSQL both read this.
_MADE = sa.text("INSERT INTO aliases (model, alias, number) VALUES (:model, :alias, :number) ON CONFLICT DO NOTHING")


@dataclass(frozen=True)
class Move:
    """One move of an alias. `old`, `new`: numbers, None where it was not there before or is not any more."""

    alias: str
    old: int | None
    new: int | None
    at: str
    by: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def move(db: Connection, name: Name, alias: str, why: str) -> Version:
    """Let `alias` name the version behind `name`. Raises `UnknownVersion` or `SweptError`; then nothing has moved."""
    check_alias(alias)
    version = rows.usable(db, name)
    model, number = version.name, version.number
    locked = sa.select(aliases.c.number).where(aliases.c.model == model, aliases.c.alias == alias).with_for_update()
    old = db.execute(locked).scalar()
    made = False
    while old is None and not made:
        made = bool(db.execute(_MADE, {"model": model, "alias": alias, "number": number}).rowcount)
        if not made:  # another host made it in this moment
            old = db.execute(locked).scalar()
    if old == number:
        return version
    if not made:
        at = (aliases.c.model == model) & (aliases.c.alias == alias)
        db.execute(sa.update(aliases).where(at).values(number=number))
    # A version that gc had marked is wanted again.
    own = (versions.c.model == model) & (versions.c.number == number)
    db.execute(sa.update(versions).where(own).values(tombstone_at=None))
    _record(db, model, alias, old, number, why)
    return rows.load(db, model, number)


def remove(db: Connection, model: str, alias: str, why: str) -> None:
    """Take an alias away. Raises `UnknownVersion` where there is none."""
    old = rows.numbered(db, Name(model, alias=alias))
    db.execute(sa.delete(aliases).where(aliases.c.model == model, aliases.c.alias == alias))
    _record(db, model, alias, old, None, why)


def rollback(db: Connection, model: str, alias: str, number: int, why: str) -> Version:
    """Return `alias` to `number`, or (0) to what it named before its present version.

    Raises `UnknownVersion` (REG003) where it never named another one, or not this one.
    """
    present = rows.numbered(db, Name(model, alias=alias))
    been = [m for m in history(db, model) if m.alias == alias]
    if not number:
        before = _before(been, present)
        if not before:
            said = f"alias '{alias}' of model '{model}' named no version before {present}"
            raise UnknownVersion(said, f"penstock models alias {model}/NUMBER {alias} moves it anywhere", "REG003")
        number = before
    elif number not in {m.new for m in been}:
        listed = ", ".join(str(m.new) for m in been if m.new) or "none"
        said = f"alias '{alias}' of model '{model}' never named version {number}"
        raise UnknownVersion(said, f"earlier ones: {listed}; penstock models alias moves it anywhere", "REG003")
    return move(db, Name(model, number=number), alias, why or f"rollback from {present}")


def _before(moves: Sequence[Move], present: int) -> int | None:
    """What the alias named before `present`. Moves are a stack, so that rolling back twice goes back twice."""
    stack: list[int] = []
    for each in moves:
        if each.new in stack:
            del stack[stack.index(each.new) + 1 :]
        elif each.new is not None:
            stack.append(each.new)
    below = stack[: stack.index(present)] if present in stack else stack
    return below[-1] if below else None


def history(db: Connection, model: str) -> list[Move]:
    """Every move of every alias of a model, oldest first."""
    asked = sa.select(alias_changes).where(alias_changes.c.model == model).order_by(alias_changes.c.id)
    return [
        Move(row.alias, row.old_number, row.new_number, iso(row.changed_at), row.changed_by, row.why)
        for row in db.execute(asked)
    ]


def _record(db: Connection, model: str, alias: str, old: int | None, new: int | None, why: str) -> None:
    db.execute(
        alias_changes.insert().values(
            model=model, alias=alias, old_number=old, new_number=new, changed_at=time.time(), changed_by=who(), why=why
        )
    )
