"""From one chain to another: an alias goes along with the loop whose version it names, and over to another's when told.

A changed feature plan is a second loop of the same model with a chain of its own. Both make versions; the alias stays
with the first until an operator switches it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from penstock.registry.faults import UnknownVersion
from penstock.registry.generations import Lease, present
from penstock.registry.registry import Registry
from penstock.registry.versions import Version, parse
from penstock.streams import open_topic
from penstock.training.live import settings
from penstock.training.live.bases import Bases
from penstock.training.live.cuts import newest_positions
from penstock.training.live.faults import LiveError
from penstock.training.live.rollback import chosen


def chain_of(version: Version) -> str:
    """The chain that a version is of; of one that no loop made, the model's own."""
    online: Mapping[str, Any] = version.manifest.get("lineage", {}).get("online", {})
    return str(online.get("of") or version.name)


def along(registry: Registry, version: str, alias: str, lease: Lease) -> None:
    """Let the alias name a newer version of the loop; one that follows another chain stays where it is."""
    try:
        now = registry.resolve(f"models:/{parse(version).model}@{alias}")
    except UnknownVersion:
        now = None
    if now is None or chain_of(now) == lease.model:
        registry.alias(version, alias, "proved good online", lease.generation, lease.model)


def switch(file: settings.File, *, to: str = "", alias: str = "") -> Mapping[str, Any]:
    """Let an alias (by default that of [bases]) name this loop's newest good version, or `to`, and go along with it.

    Raises `LiveError`: LIVE009 where there is no such version, LIVE012 where the loop has not caught up (`to` takes a
    version as it is), or where there is no alias to switch.
    """
    document = file.document
    model, chain = document.model.name, document.model.writes
    alias = alias or (document.bases.alias if document.bases else "")
    if not alias:
        raise LiveError("there is no alias to switch", "--alias live, or alias = 'live' in [bases]", "LIVE012")
    base = chosen(Bases(file.at(document.checkpoints.folder), 2).all(), to, model)
    left = 0 if to else behind(file)
    if left:
        said = f"the chain '{chain}' has not caught up: {left:,} records are older than its lag may be"
        raise LiveError(
            said, "wait for penstock_online_lag_seconds to fall; --to VERSION takes one as it is", "LIVE012"
        )
    with Registry() as registry:
        try:
            before = registry.resolve(f"models:/{model}@{alias}")
        except UnknownVersion:
            before = None
        registry.alias(base.version, alias, f"switched to chain '{chain}'")
        with registry.database.read() as db:
            alive = present(db, chain).until > time.time()
    return {
        "model": model, "alias": alias, "version": base.version, "chain": chain, "trained": alive,
        "before": before.uri if before else None, "chain_before": chain_of(before) if before else None,
    }  # fmt: skip


def behind(file: settings.File) -> int:
    """Records that the newest checkpoint has not consumed and that are older than it may be behind: what is due by
    [lag] and [checkpoints]."""
    document = file.document
    due_ms = int((time.time() - document.lag.most_s - document.checkpoints.every_s) * 1000)
    held = newest_positions(file.at(document.checkpoints.folder))
    with open_topic(file.address(document.samples.topic), create=False) as topic:
        return sum(max(0, topic.seek(p, due_ms) - held.get(p, 0)) for p in range(topic.partitions))
