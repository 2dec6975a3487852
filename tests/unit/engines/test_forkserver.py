"""The forkserver forks safely or not at all, and a node behaves the same whichever way it was started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from penstock.engines.forkserver import foreign_threads
from penstock.engines.spec import NodeResult, NodeSpec, StepSpec
from penstock.flow.launcher import Ended, Job, LocalLauncher

NODES = 20


def job(folder: Path, number: int, fresh: bool = False) -> Job:
    node = folder / f"n{number}"
    node.mkdir()
    steps = (
        StepSpec(kind="input", name="a", type="csv", attrs={"path": f"{folder}/in.csv"}),
        StepSpec(
            kind="process", name="b", type="aggregate", attrs={"from": "a", "by": "k", "columns": "count(*) as n"}
        ),
        StepSpec(kind="output", name="o", type="parquet", attrs={"from": "b", "path": f"{folder}/o{number}.parquet"}),
    )
    spec = NodeSpec(run="r", node=f"n{number}", engine="local", folder=str(node), steps=steps)
    (node / "spec.json").write_text(spec.model_dump_json())
    return Job(f"n{number}", "local", sys.executable, node, fresh=fresh)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("k,x\n" + "".join(f"{i % 7},{i}\n" for i in range(5_000)))
    return tmp_path


def until(launcher: LocalLauncher, count: int) -> list[Ended]:
    ended: list[Ended] = []
    deadline = time.monotonic() + 120
    while len(ended) < count:
        assert time.monotonic() < deadline, "a forked node hangs"
        ended += launcher.poll(1.0)
    return ended


def test_many_forked_nodes_compute_the_same_as_a_fresh_one(folder: Path) -> None:
    launcher = LocalLauncher(folder)
    try:
        launcher.start(job(folder, 0, fresh=True))
        assert until(launcher, 1) == [Ended("n0", 0)]
        for number in range(1, NODES + 1, 2):
            launcher.start(job(folder, number))
            launcher.start(job(folder, number + 1))
            assert {e.status for e in until(launcher, 2)} == {0}
    finally:
        launcher.close()
    results = [NodeResult.model_validate_json((folder / f"n{i}/result.json").read_bytes()) for i in range(NODES + 1)]
    assert len({r.outputs["o"].content for r in results}) == 1


def test_the_server_starts_no_thread_that_a_fork_would_lose(folder: Path) -> None:
    launcher = LocalLauncher(folder)
    try:
        launcher.start(job(folder, 1))
        until(launcher, 1)
        (server,) = launcher._servers.values()
        assert server.serves is True
    finally:
        launcher.close()


def test_a_thread_of_somebody_elses_is_seen() -> None:
    import threading

    before, stop = foreign_threads(), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(foreign_threads()) == len(before) + 1
    finally:
        stop.set()
        thread.join()


def test_when_the_server_dies_its_nodes_end_and_the_next_ones_start_fresh(folder: Path) -> None:
    launcher = LocalLauncher(folder)
    try:
        launcher.start(job(folder, 1))
        until(launcher, 1)
        (server,) = launcher._servers.values()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        launcher.start(job(folder, 2))
        assert until(launcher, 1) == [Ended("n2", 0)]
    finally:
        launcher.close()
