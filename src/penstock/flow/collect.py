"""`flow gc`: which runs may go, what they weigh, and removing them; and what killed runs left beside their outputs.

A run stays when it lives, when it is the newest finished run of its flow, or when it is among the last `keep` or
younger than `days`. Nothing that stays needs a run that goes: reused outputs are linked into the run that reused them,
and a cache entry goes with the outputs it points into. Feature plans stay: any run may apply any of them.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass

from penstock.data.leftovers import Leftover, leftovers
from penstock.engines.spec import NodeSpec
from penstock.flow.launcher import SPEC
from penstock.flow.records import RunRecord
from penstock.flow.store import RunStore


@dataclass(frozen=True)
class Candidate:
    """A run that may be removed. `size_bytes`: what that frees; a file that another run links too frees nothing."""

    run: RunRecord
    size_bytes: int


def candidates(store: RunStore, keep: int, days: float) -> list[Candidate]:
    """Oldest first."""
    newest_done: set[str] = set()
    flows_seen: dict[str, int] = {}
    found = []
    for record in store.runs():  # newest first
        position = flows_seen.get(record.flow_file, 0)
        flows_seen[record.flow_file] = position + 1
        first_done = record.status == "done" and record.flow_file not in newest_done
        if first_done:
            newest_done.add(record.flow_file)
        young = time.time() - record.started < days * 86_400
        if first_done or position < keep or young or store.runner(record.run):
            continue
        found.append(Candidate(record, _weight(store, record)))
    return found[::-1]


def _weight(store: RunStore, record: RunRecord) -> int:
    total = 0
    for parent, _, files in os.walk(store.run_folder(record.run)):
        for name in files:
            found = os.lstat(os.path.join(parent, name))  # noqa: PTH118
            if found.st_nlink == 1:
                total += found.st_size
    return total


def remove(store: RunStore, found: Candidate) -> bool:
    """Forget the run, then delete its folder; False when somebody runs it now."""
    lock = store.lock(found.run.run)
    if lock is None:
        return False
    try:
        store.delete_run(found.run.run)
        shutil.rmtree(store.run_folder(found.run.run), ignore_errors=True)
    finally:
        os.close(lock)
    return True


def left_aside(store: RunStore) -> list[Leftover]:
    """What killed runs of this store left beside the outputs they declared and no live run holds, by path."""
    declared: set[str] = set()
    for record in store.runs():
        for spec in store.run_folder(record.run).glob(f"nodes/*/attempt-*/{SPEC}"):
            with suppress(OSError, ValueError):  # a spec that was cut short names no output that was begun
                steps = NodeSpec.model_validate_json(spec.read_bytes()).steps
                declared |= {step.attrs.get("path", "") for step in steps if step.kind == "output"}
    found = {left.path: left for path in declared - {""} for left in _beside(path)}
    return [found[path] for path in sorted(found)]


def _beside(path: str) -> list[Leftover]:
    try:
        return leftovers(path)
    except OSError:  # a folder that may not be read
        return []


def orphans(store: RunStore) -> list[str]:
    """Folders of runs that the store does not know: a removal that was killed between its two halves."""
    known = {r.run for r in store.runs()}
    return sorted(
        p.name
        for p in (store.folder / "runs").iterdir()
        if p.is_dir() and p.name not in known and not store.runner(p.name)
    )
