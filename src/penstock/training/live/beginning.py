"""The version that a loop began with, and what the registry keeps for it.

An alias (`start = "models:/ctr@live"`) may name another version when the loop is started again, even one of another
feature plan. What a loop has learnt belongs to the plan it began with, so that version is written down beside its
checkpoints.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from penstock.data.atomic import write_bytes
from penstock.operators.places import is_name
from penstock.registry.faults import SweptError, UnknownVersion
from penstock.registry.generations import Lease
from penstock.registry.registry import Registry
from penstock.registry.versions import Version

START = "start.json"
#: For so long the registry keeps the versions of a loop that nobody starts any more.
HELD_S = 90 * 86_400.0
_log = logging.getLogger("penstock.online")


def begun_with(folder: Path, start: str, registry: Registry) -> str:
    """What `start` meant when the loop whose checkpoints are in `folder` began: a folder, or a version by its number.

    Where there are no checkpoints, what it means now. Raises `UnknownVersion`, `SweptError`, `RegistryLost`.
    """
    if not is_name(start):
        return start
    noted = folder / START
    if noted.is_file() and any(folder.glob("gen-*/*.cut")):
        known = json.loads(noted.read_bytes())
        if known["start"] == start:
            return str(known["version"])
    return registry.resolve(start).uri


def note_start(folder: Path, start: str, version: str) -> None:
    """Write down what a loop begins with, before its first checkpoint."""
    if is_name(start):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / START, json.dumps({"start": start, "version": version}).encode())


def hold(registry: Registry, lease: Lease, versions: Iterable[str]) -> None:
    """Let gc spare these versions of the registry from now on, and no longer others that were held for this loop."""
    lease.check()
    found: list[Version] = []
    for name in versions:
        try:
            found.append(registry.resolve(name))
        except (UnknownVersion, SweptError) as gone:
            _log.warning("%s is kept no longer: %s", name, gone.message)
    registry.lease(f"the loop of '{lease.model}'", found, HELD_S)
