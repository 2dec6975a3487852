"""gc takes what nobody needs, and nothing else, whoever pushes meanwhile."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.flow.store import RunStore
from penstock.flow.store_places import remember
from penstock.registry import Cache, Registry
from penstock.registry.blobs import Blobs
from penstock.registry.sweep import DAY_S, Policy, gc

Make = Callable[..., Path]
NOW = Policy(keep=1, grace_s=0)


def uris(registry: Registry) -> list[str]:
    return [v.uri for v in registry.list_versions() if not v.swept_at]


def test_nothing_happens_unless_it_is_asked_for(registry: Registry, bundle: Make) -> None:
    for text in ("one", "two"):
        registry.push(bundle(text), "ctr")
    said = registry.gc(NOW)
    assert said.dry_run and said.swept == ["models:/ctr/1"]
    assert (said.blobs, said.freed_bytes > 3) == (2, True), "its model file and its manifest; the plan is shared"
    done = registry.gc(NOW, dry_run=False)
    assert (done.swept, done.blobs, done.freed_bytes) == (said.swept, said.blobs, said.freed_bytes)
    assert uris(registry) == ["models:/ctr/2"]
    with pytest.raises(PenstockError, match="REG009 the files of models:/ctr/1 were removed by gc"):
        registry.resolve("models:/ctr/1")
    assert registry.push(bundle("three"), "ctr").number == 3, "numbers are never used twice"


def test_a_version_lies_with_a_tombstone_before_it_goes(registry: Registry, bundle: Make) -> None:
    for text in ("one", "two"):
        registry.push(bundle(text), "ctr")
    policy, day = Policy(keep=1, grace_s=7 * DAY_S), time.time()
    first = gc(registry.database, registry.blobs, policy, dry_run=False, now=day)
    assert (first.tombstoned, first.swept, first.blobs) == (["models:/ctr/1"], [], 0) and first.later_bytes > 0
    early = gc(registry.database, registry.blobs, policy, dry_run=False, now=day + 6 * DAY_S)
    assert (early.waiting, early.blobs) == (["models:/ctr/1"], 0)
    assert registry.fetch("models:/ctr/1").is_dir()
    late = gc(registry.database, registry.blobs, policy, dry_run=False, now=day + 8 * DAY_S)
    assert (late.swept, late.blobs) == (["models:/ctr/1"], 2)


def test_what_is_wanted_again_loses_its_tombstone(registry: Registry, bundle: Make) -> None:
    for text in ("one", "two"):
        registry.push(bundle(text), "ctr")
    policy, day = Policy(keep=1, grace_s=DAY_S), time.time()
    gc(registry.database, registry.blobs, policy, dry_run=False, now=day)
    registry.alias("ctr/1", "canary")
    assert gc(registry.database, registry.blobs, policy, dry_run=False, now=day + 2 * DAY_S).swept == []
    registry.drop_alias("ctr", "canary")
    again = gc(registry.database, registry.blobs, policy, dry_run=False, now=day + 3 * DAY_S)
    assert again.tombstoned == ["models:/ctr/1"], "its time begins anew"


def test_everything_that_refers_to_a_version_keeps_it(registry: Registry, bundle: Make) -> None:
    for number in range(1, 9):
        parent = {"parent": "models:/ctr/4"} if number == 5 else {"parent": "models:/ctr/3"} if number == 4 else {}
        registry.push(bundle(f"of {number}"), "ctr", lineage=parent)
    registry.alias("ctr/1", "live")
    registry.alias("ctr/2", "live")
    registry.pin("ctr/5", "audit")
    registry.lease("host-1", [registry.resolve("models:/ctr/6")], 60)
    registry.lease("host-2", [registry.resolve("models:/ctr/7")], -1)
    done = registry.gc(NOW, dry_run=False)
    assert done.swept == ["models:/ctr/7"], "a host that died holds nothing"
    assert {uri.rpartition("/")[2]: why.partition(" by ")[0] for uri, why in done.kept.items()} == {
        "1": "alias live goes back to it",
        "2": "alias live",
        "3": "ctr/4 was trained on from it",
        "4": "ctr/5 was trained on from it",
        "5": "pinned",
        "6": "held",
        "8": "one of the newest 1",
    }
    registry.pin("ctr/5", "")
    registry.lease("host-1", [], 60)
    assert registry.gc(NOW, dry_run=False).swept == [f"models:/ctr/{n}" for n in (3, 4, 5, 6)]
    assert registry.rollback("ctr").number == 1


def test_results_of_flows_that_read_a_swept_version_are_forgotten(
    registry: Registry, bundle: Make, tmp_path: Path
) -> None:
    old, new = registry.push(bundle("one"), "ctr"), registry.push(bundle("two"), "ctr")
    folder = tmp_path / "store"
    RunStore.open(folder).close()
    remember(folder)
    db = sqlite3.connect(folder / "store.sqlite")
    with db:
        db.execute("INSERT INTO runs VALUES ('r', 'f', 'f', '', '', '', 'done', 0, 0, 0, '')")
        for node, version in (("a", old), ("b", new)):
            db.execute("INSERT INTO cache VALUES (?, 'r', ?, 0, '', '')", (node, node))
            lineage = f'{{"code": {{"scored": "{version.digest}"}}}}'
            db.execute(
                "INSERT INTO nodes (run, node, position, status, lineage) VALUES ('r', ?, 0, 'done', ?)",
                (node, lineage),
            )
    assert registry.gc(NOW, dry_run=False).flow_results == 1
    assert db.execute("SELECT node FROM cache").fetchall() == [("b",)]
    db.close()


# --- interleaved ---


class Interrupted(Blobs):
    """Blobs whose every step may be preceded by something else."""

    def __init__(self, url: str, before: Callable[[], None]) -> None:
        super().__init__(url)
        self.before = before

    def put(self, source: Path, sha256: str, alive: Callable[[], None] = lambda: None) -> None:
        self.before()
        super().put(source, sha256, alive)
        self.before()


def interleave(registry: Registry, bundle: Make, times: int, seed: int) -> None:
    """gc between any two steps of pushes, pushes between any two of gc; contents repeat, so that blobs are shared."""
    chance = random.Random(seed)
    contents = [bundle(f"content {i}") for i in range(6)]
    registry.push(contents[0], "m0")
    ran = {"gc": 0, "pushes": 0}
    depth = 0

    def other(kind: str) -> None:
        nonlocal depth
        if depth > 2 or chance.random() < 0.5:
            return
        depth += 1
        if kind == "gc":
            ran["gc"] += 1
            policy = Policy(chance.randint(1, 2), 0)
            gc(registry.database, store, policy, dry_run=False, between=lambda: other("push"))
        else:
            ran["pushes"] += 1
            registry.push(chance.choice(contents), f"m{chance.randrange(3)}", aliases=chance.choice([(), ("live",)]))
        depth -= 1

    store = Interrupted(registry.blobs.url, lambda: other("gc"))
    registry.__dict__["blobs"] = store
    while ran["gc"] < times:
        other(chance.choice(["gc", "push"]))
        for version in registry.list_versions():
            if not version.swept_at:
                whole = registry.resolve(version.uri)
                for sha256, size in whole.files.values():
                    assert store.size_of(sha256) == size, (seed, ran, version.uri)
    gc(registry.database, store, NOW, dry_run=False)
    needed = {s for v in registry.list_versions() if not v.swept_at for s, _ in registry.resolve(v.uri).files.values()}
    there = {p.parent.name + p.name for p in Path(store.url).rglob("*") if p.is_file()}
    assert there == needed, "and nothing is left behind"


def test_gc_between_any_two_steps_of_pushes_loses_nothing(registry: Registry, bundle: Make) -> None:
    interleave(registry, bundle, 60, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_gc_interleaved_with_pushes_a_thousand_times_loses_nothing(registry: Registry, bundle: Make, seed: int) -> None:
    interleave(registry, bundle, 100, seed)


_PUSHES = """
import random, sys
from penstock.registry import Registry
chance = random.Random(sys.argv[2])
with Registry(sys.argv[1]) as opened:
    for _ in range(10):
        opened.push(chance.choice(sys.argv[3:]), chance.choice(["a", "b"]))
"""
_SWEEPS = """
import sys
from penstock.registry import Registry
from penstock.registry.sweep import Policy
with Registry(sys.argv[1]) as opened:
    while sys.stdin.readable() and not sys.stdin.closed:
        opened.gc(Policy(1, 0), dry_run=False)
        if sys.stdin.readline() == "":
            break
"""


def test_processes_that_push_and_one_that_sweeps_lose_nothing(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    contents = [str(bundle(f"content {i}")) for i in range(4)]
    place = str(tmp_path / "registry")
    registry.push(contents[0], "a")
    pushers = [subprocess.Popen([sys.executable, "-c", _PUSHES, place, str(i), *contents]) for i in range(2)]
    with subprocess.Popen([sys.executable, "-c", _SWEEPS, place], stdin=subprocess.PIPE, text=True) as sweeper:
        assert sweeper.stdin is not None
        while any(each.poll() is None for each in pushers):
            sweeper.stdin.write("again\n")
            sweeper.stdin.flush()
            time.sleep(0.1)
        sweeper.stdin.close()
    assert [each.wait() for each in (*pushers, sweeper)] == [0, 0, 0]
    with Registry(place, cache=Cache(tmp_path / "other")) as opened:
        left = [v for v in opened.list_versions() if not v.swept_at]
        assert len(left) >= 2
        assert all(opened.fetch(v.uri).name == v.digest for v in left)
    assert sorted(v.number for v in registry.list_versions("a")) == list(range(1, 1 + len(registry.list_versions("a"))))
