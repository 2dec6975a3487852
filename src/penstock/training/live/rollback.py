"""The way back: a new generation that begins with an earlier version of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.registry.generations import Lease, present
from penstock.registry.registry import Registry
from penstock.streams import open_topic
from penstock.training.live import settings
from penstock.training.live.bases import Base, Bases
from penstock.training.live.cuts import begin_from, newest_positions
from penstock.training.live.faults import LiveError


def roll_back(file: settings.File, *, to: str = "", skip: bool = False, take_over: bool = False) -> Mapping[str, Any]:
    """Let the next run begin with a base: `to` names its version, by default the newest that proved good.

    Without `skip` it learns again from all samples since; with it from where the loop had come, and what lies between
    is counted as a gap. Raises `LeaseHeld` while a trainer runs, unless `take_over` fences it off; `LiveError`
    (LIVE009) where there is no such base.
    """
    document, folder = file.document, file.at(file.document.checkpoints.folder)
    bases = Bases(folder, 2)
    base = chosen(bases.all(), to, document.model.name)
    with Registry() as registry, Lease(registry.database, document.model.writes, take_over=take_over) as lease:
        came = newest_positions(folder)
        with open_topic(file.address(document.samples.topic), create=False) as topic:
            left_out = {str(p): came[p] for p in range(topic.partitions) if p in came} if skip else {}
        begin_from(folder, lease.generation, bases.place(base), {"base": base.version, "skip_to": left_out})
        return {
            "model": document.model.name, "generation": lease.generation, "version": base.version, "good": base.good,
            "samples": base.samples, "skip": skip,
            "gap": sum(max(0, offset - base.positions.get(p, 0)) for p, offset in left_out.items()),
        }  # fmt: skip


def chosen(bases: list[Base], to: str, model: str) -> Base:
    """The base of a version (its number, `models:/...` or NAME/NUMBER), or the newest good one."""
    if not bases:
        hint = "[bases] in the settings makes them"
        raise LiveError(f"'{model}' has no version of its loop to go back to", hint, "LIVE009")
    listed = ", ".join(f"{base.version}{' (good)' if base.good else ''}" for base in reversed(bases))
    if not to:
        good = [base for base in bases if base.good]
        if good:
            return good[-1]
        said = f"no version of '{model}' has proved good yet"
        raise LiveError(said, f"--to names one that has not: {listed}", "LIVE009")
    names = (to.removeprefix("models:/"), f"{model}/{to}")
    found = [base for base in bases if base.version.removeprefix("models:/") in names]
    if not found:
        raise LiveError(f"'{to}' is no version of the loop of '{model}' that is kept", f"there are {listed}", "LIVE009")
    return found[0]


def status(file: settings.File) -> Mapping[str, Any]:
    """Who trains the model, and what it can go back to."""
    document = file.document
    with Registry() as registry, registry.database.read() as db:
        now = present(db, document.model.writes)
    bases = Bases(file.at(document.checkpoints.folder), 2).all()
    return {
        "model": document.model.name, "chain": document.model.writes, "generation": now.number,
        "owner": now.owner, "lease_until": now.until,
        "versions": [
            {"version": base.version, "samples": base.samples, "good": base.good, "time_ms": base.time_ms}
            for base in bases
        ],
    }  # fmt: skip
