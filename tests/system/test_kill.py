"""kill -9 the runner or a node at a random instant: `--resume` finishes, redoes nothing, and no output is ever torn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from penstock.engines.spec import NodeResult
from penstock.flow.store import RunStore

ROWS = 20_000

FLOW = f"""<flow xmlns="urn:penstock:flow:1" name="killed">
  <param name="version" type="int"/>
  <node name="made" engine="command">
    <arg>{sys.executable}</arg><arg>make.py</arg><arg>${{version}}</arg>
    <output name="rows" type="csv" path="out/rows.csv"/>
  </node>
  <node name="mapped">
    <input name="rows" from="made.rows"/>
    <process name="more" type="derive" from="rows" columns="version * 10 as ten"/>
    <output name="folder" type="parquet" from="more" path="out/folder"/>
    <output name="kept" type="parquet" from="more"/>
  </node>
  <node name="slow" engine="command" after="mapped">
    <arg>sh</arg><arg>-c</arg>
    <arg>for i in 1 2 3 4 5; do cat "$PENSTOCK_IN_rows" >> "$PENSTOCK_OUT_copy"; sleep 0.05; done</arg>
    <input name="rows" from="made.rows"/>
    <output name="copy" type="text" path="out/copy.txt"/>
  </node>
  <node name="last">
    <input name="kept" from="mapped.kept"/>
    <process name="some" type="limit" from="kept" rows="1000"/>
    <output name="file" type="parquet" from="some" path="out/last.parquet"/>
  </node>
</flow>
"""

MAKE = f"""
import os, sys
with open(os.environ["PENSTOCK_OUT_rows"], "w") as out:
    out.write("id,version\\n")
    for i in range({ROWS}):
        out.write(f"{{i}},{{sys.argv[1]}}\\n")
        if i % 4000 == 0:
            out.flush()
"""


class Victim:
    """A flow in a folder of its own, its runner, and what may be true of its outputs at any instant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "killed.xml").write_text(FLOW)
        (folder / "make.py").write_text(MAKE)
        self.environment = {k: v for k, v in os.environ.items() if k != "PENSTOCK_HOME"}
        self.environment["XDG_STATE_HOME"] = str(folder / "state")

    def start(self, version: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "penstock.cli", "flow", "run", "killed.xml", "--resume", "--jobs", "2",
                   "--set", f"version={version}", "--date", "2026-01-31"]  # fmt: skip
        with (self.folder / "runner.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def store(self) -> RunStore | None:
        folder = self.folder / ".penstock"
        return RunStore.open(folder) if (folder / "store.sqlite").exists() else None

    def done_results(self) -> Counter[str]:
        """ "RUN/NODE" -> how many of its attempts came to a good end."""
        found: Counter[str] = Counter()
        for file in self.folder.glob(".penstock/runs/*/nodes/*/attempt-*/result.json"):
            if NodeResult.model_validate_json(file.read_bytes()).status == "done":
                found[f"{file.parents[3].name}/{file.parents[1].name}"] += 1
        return found

    def workers(self) -> list[int]:
        """The live processes of nodes."""
        store = self.store()
        if store is None:
            return []
        try:
            newest = store.runs()[:1]
            pids = [a["pid"] for r in newest for a in store.attempts(r.run) if a["ended"] is None and a["pid"]]
            return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        finally:
            store.close()

    def versions(self) -> dict[str, int]:
        """The one version each output holds. Fails if any is torn: short, mixed, or half a file."""
        out, found = self.folder / "out", {}
        if (out / "rows.csv").exists():
            frame = pl.read_csv(out / "rows.csv")
            assert frame.height == ROWS and frame["id"].to_list() == list(range(ROWS))
            found["rows"] = _only(frame["version"])
        if (out / "folder").exists():
            frame = pl.read_parquet(out / "folder")
            assert frame.height == ROWS and (frame["ten"] == frame["version"] * 10).all()
            found["folder"] = _only(frame["version"])
        if (out / "copy.txt").exists():
            lines = (out / "copy.txt").read_text().splitlines()
            assert len(lines) == 5 * (ROWS + 1)
            kinds = {line.split(",")[1] for line in lines}
            assert len(kinds) == 2
            found["copy"] = int(next(k for k in kinds if k != "version"))
        if (out / "last.parquet").exists():
            frame = pl.read_parquet(out / "last.parquet")
            assert frame.height == 1000
            found["last"] = _only(frame["version"])
        return found


def _only(column: pl.Series) -> int:
    assert column.n_unique() == 1, "rows of two versions in one output"
    return int(column[0])


def _survive(folder: Path, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    victim = Victim(folder)
    version, done_kills, span = 1, 0, 3.0
    # Nodes that came to a good end must not be started again.
    finished: Counter[str] = Counter()
    while done_kills < kills:
        started = time.monotonic()
        runner = victim.start(version)
        wait = dice.uniform(0.05, span)
        try:
            status: int | None = runner.wait(wait)
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            workers = victim.workers()
            target = dice.choice(workers) if workers and dice.random() < 0.5 else runner.pid
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
            done_kills += 1
            status = runner.wait(60)
            if target != runner.pid:
                assert status in (0, 1), (folder / "runner.log").read_text()[-3000:]
            _nothing_outlives(victim)
        if status == 0:
            span = max(1.0, min(span, 1.3 * (time.monotonic() - started)))
            assert set(victim.versions().values()) == {version}
            version += 1
        elif status == 1:
            log = (folder / "runner.log").read_text()
            assert "Traceback" not in log, log[-3000:]
        assert set(victim.versions().values()) <= {version - 1, version}
        results = victim.done_results()
        for node, count in results.items():
            assert count == 1, f"{node} was run again after it had come to a good end"
        assert set(finished) <= set(results)
        finished = results
    last = victim.start(version)
    assert last.wait(120) == 0, (folder / "runner.log").read_text()[-3000:]
    assert victim.versions() == {"rows": version, "folder": version, "copy": version, "last": version}
    assert all(count == 1 for count in victim.done_results().values())
    leftovers = [p.name for p in (folder / "out").iterdir() if not p.name.endswith(".lock")]
    assert sorted(leftovers) == ["copy.txt", "folder", "last.parquet", "rows.csv"]


def _nothing_outlives(victim: Victim) -> None:
    deadline = time.monotonic() + 5
    while victim.workers() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert victim.workers() == [], "a node outlived its runner"


def test_ten_kills_leave_nothing_torn_and_redo_nothing(tmp_path: Path) -> None:
    _survive(tmp_path, kills=10, seed=int(os.environ.get("PENSTOCK_KILL_SEED", "7")))


@pytest.mark.soak
def test_a_hundred_kills_leave_nothing_torn_and_redo_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    _survive(tmp_path, kills=100, seed=seed)
