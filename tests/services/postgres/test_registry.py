"""The registry on PostgreSQL: what SQLite does, shared by hosts."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.registry import Cache, Registry, bundles
from penstock.registry.sweep import Policy


def bundle(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "trees.txt").write_text(text)
    bundles.write_manifest(
        folder,
        {
            "format_version": bundles.FORMAT_VERSION, "algorithm": "gbdt", "label": "y", "plan": "", "warmup": None,
            "signature": {"inputs": [], "outputs": []}, "metrics": {}, "lineage": {},
            "files": bundles.list_files(folder),
        },
    )  # fmt: skip
    return folder


@pytest.fixture
def registry(database: str, tmp_path: Path) -> Iterator[Registry]:
    with Registry(database, str(tmp_path / "blobs"), Cache(tmp_path / "cache")) as opened:
        yield opened


def test_two_hosts_share_versions_aliases_and_blobs(registry: Registry, database: str, tmp_path: Path) -> None:
    registry.push(bundle(tmp_path / "one", "one"), "ctr", aliases=("live",), tags={"team": "ads"})
    with Registry(database, cache=Cache(tmp_path / "other host")) as other:
        assert (other.fetch("models:/ctr@live") / "trees.txt").read_text() == "one"
        other.push(bundle(tmp_path / "two", "two"), "ctr", aliases=("live",))
    assert registry.resolve("models:/ctr@live").number == 2
    assert registry.rollback("ctr", why="worse").number == 1
    assert registry.resolve("models:/ctr/1").tags == {"team": "ads"}
    assert [m.new for m in registry.describe("ctr/1")[1]] == [1, 2, 1]


_PUSHES = """
import sys
import threading
from pathlib import Path
from penstock.registry import Registry
with Registry(sys.argv[1]) as opened:
    for turn in range(8):
        opened.push(sys.argv[2 + turn % 2], "ctr")
"""


def test_hosts_push_at_once_while_one_sweeps(registry: Registry, database: str, tmp_path: Path) -> None:
    shared, own = bundle(tmp_path / "shared", "s"), [bundle(tmp_path / f"own{i}", str(i)) for i in range(2)]
    registry.push(shared, "ctr")
    hosts = [subprocess.Popen([sys.executable, "-c", _PUSHES, database, str(shared), str(each)]) for each in own]
    sweeps = 0
    while any(host.poll() is None for host in hosts):
        registry.gc(Policy(1, 0), dry_run=False)
        sweeps += 1
        time.sleep(0.02)
    assert [host.wait() for host in hosts] == [0, 0] and sweeps > 1
    found = registry.list_versions("ctr")
    assert [v.number for v in found] == list(range(17, 0, -1)), "consecutive"
    for version in found:
        if not version.swept_at:
            assert registry.fetch(version.uri).name == version.digest
            registry.cache.find(version.digest)


def test_a_new_database_opened_by_many_is_made_once(database: str, tmp_path: Path) -> None:
    one = bundle(tmp_path / "one", "one")
    script = (
        "import sys; from penstock.registry import Registry; Registry(sys.argv[1], sys.argv[2]).push(sys.argv[3], 'm')"
    )
    hosts = [
        subprocess.Popen([sys.executable, "-c", script, database, str(tmp_path / "blobs"), str(one)]) for _ in range(3)
    ]
    assert [host.wait() for host in hosts] == [0, 0, 0]
    with Registry(database) as opened:
        assert [v.number for v in opened.list_versions()] == [3, 2, 1]


def test_files_need_a_place_that_every_host_reaches(database: str, tmp_path: Path) -> None:
    with Registry(database) as opened, pytest.raises(PenstockError, match=r"REG004 .* has no place for files yet"):
        opened.push(bundle(tmp_path / "one", "one"), "ctr")


def test_a_server_that_is_gone_is_said_and_what_was_fetched_lives_on(
    registry: Registry, database: str, tmp_path: Path
) -> None:
    registry.push(bundle(tmp_path / "one", "one"), "ctr", aliases=("live",))
    folder = registry.fetch("models:/ctr@live")
    gone = database.replace("127.0.0.1", "127.0.0.2")
    with Registry(gone, cache=registry.cache) as lost, pytest.raises(PenstockError, match=r"REG005 .* does not answer"):
        lost.resolve("models:/ctr@live")
    # The same registry, as this host knew it: its memory is by address.
    memory = registry.cache.folder / "names"
    [known] = memory.iterdir()
    with Registry(gone, cache=registry.cache) as lost:
        known.rename(memory / hashlib.sha256(lost.database.name.encode()).hexdigest()[:16])
        assert lost.resolve("models:/ctr@live").remembered
        assert lost.fetch("models:/ctr@live") == folder


def test_hosts_that_make_an_alias_at_once_all_move_it(registry: Registry, database: str, tmp_path: Path) -> None:
    registry.push(bundle(tmp_path / "one", "one"), "ctr")
    registry.push(bundle(tmp_path / "two", "two"), "ctr")
    together = threading.Barrier(8)

    def move(number: int) -> int:
        with Registry(database) as host:
            host.list_versions()  # connected
            together.wait(30)
            return host.alias(f"ctr/{1 + number % 2}", "live").number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(move, range(8))) == [1, 2] * 4
    moves = registry.describe("ctr/1")[1]
    assert [move.old for move in moves] == [None, *(move.new for move in moves[:-1])]
    assert registry.resolve("models:/ctr@live").number == moves[-1].new
