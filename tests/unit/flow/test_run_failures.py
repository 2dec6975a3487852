"""What goes wrong in a node is told in a sentence: never a traceback, never a torn output. Through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

HEAD = '<flow xmlns="urn:penstock:flow:1" name="f">'

OPERATORS = '''
import os, signal, sys, time
from penstock.operators import Process

class Raises(Process):
    """Raises."""
    def run(self, inputs, context):
        import statistics
        return statistics.mean([])

class Exits(Process):
    """Calls sys.exit."""
    def run(self, inputs, context):
        sys.exit(3)

class Vanishes(Process):
    """Leaves without a word."""
    def run(self, inputs, context):
        os._exit(7)

class Killed(Process):
    """Is killed."""
    def run(self, inputs, context):
        os.kill(os.getpid(), signal.SIGKILL)

class Eats(Process):
    """Takes memory until it is stopped, a little at a time."""
    def run(self, inputs, context):
        kept = []
        while True:
            kept.append(bytearray(4 << 20))
            time.sleep(0.001)

class Gulps(Process):
    """Takes far too much memory at once."""
    def run(self, inputs, context):
        import numpy
        return numpy.ones(1 << 33)

class Sleeps(Process):
    """Never ends."""
    def run(self, inputs, context):
        print("going to sleep", flush=True)
        time.sleep(600)

class Flaky(Process):
    """Fails until a file says it has been tried twice."""
    def run(self, inputs, context):
        tries = context.flow_dir / "tries"
        with tries.open("a") as out:
            out.write("x")
        if len(tries.read_text()) < 3:
            raise RuntimeError("not yet")
        return inputs[self.from_]

class Says(Process):
    """Prints a secret."""
    def run(self, inputs, context):
        print("the secret is", os.environ["PENSTOCK_SECRET_KEY"])
        return inputs[self.from_]
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(OPERATORS)
    (tmp_path / "in.csv").write_text("id,x\n1,2\n2,3\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("PENSTOCK_HOME", raising=False)
    return tmp_path


def write(folder: Path, cls: str, node: str = "", target: str = "out/o.csv") -> None:
    (folder / "f.xml").write_text(f"""{HEAD}
  <node name="n" {node}>
    <input name="a" type="csv" path="in.csv"/>
    <process name="b" class="mine:{cls}" from="a"/>
    <output name="o" type="csv" from="b" path="{target}"/>
  </node>
</flow>""")


def penstock(folder: Path, *arguments: str, status: int) -> tuple[dict[str, Any], str]:
    """Run a command; its JSON document, and stderr (or, for a wrong request, the document's text)."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "flow", *arguments, "--json"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return (json.loads(done.stdout) if done.stdout.strip() else {}), done.stderr if status != 2 else done.stdout


def failure(folder: Path) -> tuple[dict[str, Any], str]:
    """Run f.xml, which must fail; its one node's document, and stderr. The old output must stand."""
    out = folder / "out" / "o.csv"
    out.parent.mkdir()
    out.write_text("old\n")
    document, said = penstock(folder, "run", "f.xml", status=1)
    assert document["status"] == "failed"
    assert out.read_text() == "old\n"
    return document["nodes"][0], said


def test_an_exception_names_the_step_the_error_and_the_line(folder: Path) -> None:
    write(folder, "Raises")
    node, said = failure(folder)
    assert "'b'" in node["error"] and "StatisticsError" in node["error"]
    assert "mine.py:9" in node["error"], "the user's line, not the library's"
    assert node["error"] in said
    log, _ = penstock(folder, "logs", newest(folder), "n", status=0)
    assert "Traceback" in log[0]["text"]  # type: ignore[index]


def test_sys_exit_is_a_failure_that_names_the_step(folder: Path) -> None:
    write(folder, "Exits")
    node, _ = failure(folder)
    assert "step 'b' (mine:Exits) called sys.exit(3)" in node["error"]
    assert node["code"] == "RUN002"


def test_a_process_that_vanishes_is_noticed(folder: Path) -> None:
    write(folder, "Vanishes")
    node, _ = failure(folder)
    assert node["error"] == "node 'n' died: its process ended with exit status 7 and left no result"
    assert node["code"] == "RUN001" and "flow logs" in node["hint"]


def test_a_killed_process_is_noticed(folder: Path) -> None:
    write(folder, "Killed")
    node, _ = failure(folder)
    assert "ended by SIGKILL" in node["error"]


@pytest.mark.parametrize("cls", ["Eats", "Gulps"])
def test_memory_beyond_the_limit_fails_with_a_sentence(folder: Path, cls: str) -> None:
    write(folder, cls, 'memory="600MB"')
    node, _ = failure(folder)
    assert "ran out of memory" in node["error"]
    assert node["code"] in ("RUN003", "RUN104")


def test_a_command_that_eats_memory_is_stopped_with_its_children(folder: Path) -> None:
    eats = "import time; kept = bytearray(1000000000); time.sleep(60)"
    (folder / "f.xml").write_text(f"""{HEAD}
  <node name="n" engine="command" memory="300MB"><arg>sh</arg><arg>-c</arg>
    <arg>{sys.executable} -c '{eats}'; true</arg><output name="o" type="text"/></node>
</flow>""")
    document, _ = penstock(folder, "run", "f.xml", status=1)
    assert document["nodes"][0]["code"] == "RUN003" and document["seconds"] < 50
    deadline = time.monotonic() + 10
    while any(eats.encode() in line for line in _commands()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(eats.encode() in line for line in _commands())


def _commands() -> list[bytes]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if int(each.parent.name) != os.getpid():
                found.append(each.read_bytes())
    return found


def test_a_node_that_takes_too_long_is_stopped(folder: Path) -> None:
    write(folder, "Sleeps", 'timeout_s="2"')
    node, _ = failure(folder)
    assert node["code"] == "RUN004" and "timeout_s=2" in node["error"]


def test_retries_run_the_node_again_until_it_succeeds(folder: Path) -> None:
    write(folder, "Flaky", 'retries="2"')
    document, said = penstock(folder, "run", "f.xml", status=0)
    assert document["nodes"][0]["status"] == "done"
    assert (folder / "tries").read_text() == "xxx"
    assert "again in" in said


def test_what_needs_a_failed_node_is_skipped_and_said_so(folder: Path) -> None:
    (folder / "f.xml").write_text(f"""{HEAD}
  <node name="n" engine="command"><arg>sh</arg><arg>-c</arg><arg>echo no such luck >&amp;2; exit 4</arg>
    <output name="o" type="csv"/></node>
  <node name="m"><input name="a" from="n.o"/><output name="p" type="csv" from="a"/></node>
</flow>""")
    document, _ = penstock(folder, "run", "f.xml", status=1)
    assert [n["status"] for n in document["nodes"]] == ["failed", "skipped"]
    assert document["nodes"][0]["error"] == "'sh' of node 'n' ended with exit status 4: no such luck"


def test_secrets_are_masked_in_logs_and_never_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", "hunter2hunter2")
    write(folder, "Says", target="out/o.csv")
    text = (folder / "f.xml").read_text().replace('name="n" >', 'name="n"><env name="K" value="${secret.KEY}"/>')
    (folder / "f.xml").write_text(text)
    penstock(folder, "run", "f.xml", status=0)
    for file in (folder / ".penstock").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file
    log, _ = penstock(folder, "logs", newest(folder), status=0)
    assert "the secret is ***" in log[0]["text"]  # type: ignore[index]


def newest(folder: Path) -> str:
    runs, _ = penstock(folder, "runs", status=0)
    return str(runs[0]["run"])  # type: ignore[index]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock.cli", "flow", "run", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until_asleep(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if any("going to sleep" in log.read_text() for log in folder.glob(".penstock/runs/*/nodes/*/*/log.txt")):
            return
        time.sleep(0.05)
    raise AssertionError("the node never started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_cleanly_and_keeps_the_old_output(folder: Path, number: signal.Signals) -> None:
    write(folder, "Sleeps")
    (folder / "out").mkdir()
    (folder / "out/o.csv").write_text("old\n")
    runner = start(folder, "f.xml")
    until_asleep(folder)
    os.kill(runner.pid, number)
    out, said = runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert "Traceback" not in said + out
    assert (folder / "out/o.csv").read_text() == "old\n"
    runs, _ = penstock(folder, "runs", status=0)
    assert runs[0]["status"] == "interrupted"  # type: ignore[index]


def test_two_runners_never_share_a_run_or_a_path(folder: Path) -> None:
    write(folder, "Sleeps")
    runner = start(folder, "f.xml")
    try:
        until_asleep(folder)
        _, said = penstock(folder, "run", "f.xml", "--resume", status=2)
        assert "RUN009" in said and "is still running" in said
        _, said = penstock(folder, "run", "f.xml", status=2)
        assert "RUN008" in said and "out/o.csv" in said
        document, _ = penstock(folder, "cancel", newest(folder), status=0)
        assert document["stopped"]
        assert runner.wait(30) == 130
    finally:
        runner.kill()
        runner.communicate()


needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@pytest.fixture
def mounted(folder: Path) -> Any:
    """Mounts a tmpfs at folder/out with the given options; unmounts it afterwards."""
    target = folder / "out"
    target.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", target], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
        return target

    yield mount
    subprocess.run(["umount", "-l", target], capture_output=True)


@needs_mount
def test_a_full_disk_is_told_and_leaves_the_old_output(folder: Path, mounted: Any) -> None:
    out = mounted("size=256k")
    (out / "o.csv").write_text("old\n")
    (folder / "in.csv").write_text("id,x\n" + "".join(f"{i},{i * 7919}\n" for i in range(60_000)))
    (folder / "f.xml").write_text(f"""{HEAD}
  <node name="n">
    <input name="a" type="csv" path="in.csv"/>
    <output name="o" type="csv" from="a" path="out/o.csv"/>
  </node>
</flow>""")
    document, _ = penstock(folder, "run", "f.xml", status=1)
    assert "space" in document["nodes"][0]["error"] or "disk is full" in document["nodes"][0]["error"]
    assert (out / "o.csv").read_text() == "old\n"
    assert [p.name for p in out.iterdir() if not p.name.endswith(".lock")] == ["o.csv"]


@needs_mount
def test_a_full_run_store_is_told(folder: Path, mounted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = mounted("size=1500k")
    monkeypatch.setenv("PENSTOCK_HOME", str(store))
    (folder / "f.xml").write_text(f"""{HEAD}
  <node name="n" engine="command"><arg>sh</arg><arg>-c</arg>
    <arg>head -c 5000000 /dev/zero > "$PENSTOCK_OUT_o"</arg><output name="o" type="text"/></node>
</flow>""")
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "flow", "run", "f.xml"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and re.search("space|full", done.stderr), done.stderr


@needs_mount
def test_a_read_only_target_is_told(folder: Path, mounted: Any) -> None:
    out = mounted("size=256k")
    (out / "o.csv").write_text("old\n")
    subprocess.run(["mount", "-o", "remount,ro", out], check=True)
    (folder / "f.xml").write_text(f"""{HEAD}
  <node name="n">
    <input name="a" type="csv" path="in.csv"/>
    <output name="o" type="csv" from="a" path="out/o.csv"/>
  </node>
</flow>""")
    document, _ = penstock(folder, "run", "f.xml", status=1)
    assert "read-only" in document["nodes"][0]["error"].lower()
    assert (out / "o.csv").read_text() == "old\n"
