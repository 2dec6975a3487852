"""What need not run again does not: the cache, `--resume`, `--only`, and what `flow gc` may take away."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import main
from penstock.flow import cache

FLOW = """<flow xmlns="urn:penstock:flow:1" name="f">
  <param name="least" type="int" default="0"/>
  <node name="one">
    <input name="a" type="csv" path="in.csv"/>
    <process name="b" type="filter" from="a" where="x &gt;= ${least}"/>
    <output name="kept" type="parquet" from="b"/>
    <output name="file" type="csv" from="b" path="out/file.csv"/>
  </node>
  <node name="two">
    <input name="a" from="one.kept"/>
    <output name="o" type="csv" from="a" path="out/two.csv"/>
  </node>
</flow>
"""


#: A program that begins its output with the name of the process that started it, and never ends.
HANGS = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="n" engine="command">
    <arg>sh</arg><arg>-c</arg><arg>echo $PPID > $PENSTOCK_OUT_o/half; exec sleep 60</arg>
    <output name="o" type="text" path="out/rows"/>
  </node>
</flow>
"""
FEATURES = """<features xmlns="urn:penstock:features:1" name="f">
  <slot name="x" id="1" fn="hash" from="x"/>
</features>
"""
MAPPED = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="n">
    <input name="a" type="csv" path="in.csv"/>
    <process name="m" type="features" from="a" map="features.xml"/>
    <output name="o" type="parquet" from="m" path="out/mapped.parquet"/>
  </node>
</flow>
"""


def wait_for(something: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not something():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Folder:
    """A flow in a folder, and its commands, run in this process."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path, capsys
        (path / "in.csv").write_text("id,x\n1,2\n2,3\n")
        (path / "f.xml").write_text(FLOW)

    def command(self, *arguments: str, status: int = 0) -> Any:
        self.capsys.readouterr()
        ended = main(["flow", *arguments, "--json"])
        said = self.capsys.readouterr()
        self.said = said.out + said.err
        assert ended == status, said.out + said.err
        return json.loads(said.out) if said.out.strip() else None

    def break_it(self) -> None:
        """Let the second node fail when it runs."""
        expects = '<process name="e" type="expect" from="a" min_rows="3"/>'
        broken = FLOW.replace('from="one.kept"/>', f'from="one.kept"/>{expects}').replace(
            '"csv" from="a"', '"csv" from="e"'
        )
        (self.path / "f.xml").write_text(broken)

    def run(self, *arguments: str, status: int = 0) -> Any:
        return self.command("run", "f.xml", *arguments, status=status)

    def start(self) -> subprocess.Popen[bytes]:
        """A run in a process of its own, to be killed."""
        command = [sys.executable, "-m", "penstock.cli", "flow", "run", "f.xml"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cached(self, *arguments: str) -> dict[str, bool]:
        return {n["name"]: n["cached"] for n in self.run(*arguments)["nodes"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("PENSTOCK_HOME", raising=False)
    # Somebody may be editing the package while its tests run; what a changed package means has its own test.
    monkeypatch.setattr(cache, "package_code", lambda: "fixed")
    return Folder(tmp_path, capsys)


def test_a_run_says_what_the_contract_promises(folder: Folder) -> None:
    document = folder.run()
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", document["run"])
    assert document["status"] == "done" and document["seconds"] > 0 and document["metrics"] == {}
    assert [(n["name"], n["status"], n["cached"], n["rows"]) for n in document["nodes"]] == [
        ("one", "done", False, 4),
        ("two", "done", False, 2),
    ]
    assert set(document["outputs"]) == {"one.kept", "one.file", "two.o"}
    assert all(Path(p).exists() for p in document["outputs"].values())
    assert Path(document["report"]).read_text().startswith("<!doctype html>")
    assert (folder.path / "out/two.csv").read_text() == "id,x\n1,2\n2,3\n"


class TestCache:
    def test_the_same_again_runs_nothing_and_each_run_is_whole_by_itself(self, folder: Folder) -> None:
        first = folder.run()
        second = folder.run()
        assert all(n["cached"] for n in second["nodes"])
        kept = Path(second["outputs"]["one.kept"])
        assert second["run"] in str(kept) and kept.read_bytes() == Path(first["outputs"]["one.kept"]).read_bytes()
        assert os.stat(kept).st_nlink == 2

    def test_another_parameter_runs_again_and_the_old_one_is_still_known(self, folder: Folder) -> None:
        folder.run()
        assert folder.cached("--set", "least=3") == {"one": False, "two": False}
        # out/file.csv holds the other rows now, so the first result does not stand any more.
        assert folder.cached() == {"one": False, "two": False}

    def test_a_touched_input_runs_again_but_equal_content_downstream_does_not(self, folder: Folder) -> None:
        folder.run()
        os.utime(folder.path / "in.csv", (1, 1))
        assert folder.cached() == {"one": False, "two": True}

    def test_an_output_that_somebody_changed_is_made_again(self, folder: Folder) -> None:
        folder.run()
        (folder.path / "out/two.csv").write_text("mine\n")
        assert folder.cached() == {"one": True, "two": False}
        assert (folder.path / "out/two.csv").read_text() == "id,x\n1,2\n2,3\n"

    def test_an_output_that_was_only_touched_still_stands(self, folder: Folder) -> None:
        folder.run()
        os.utime(folder.path / "out/two.csv", (1, 1))
        assert folder.cached() == {"one": True, "two": True}

    def test_force_runs_everything(self, folder: Folder) -> None:
        folder.run()
        assert folder.cached("--force") == {"one": False, "two": False}

    def test_a_changed_package_runs_everything(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.run()
        monkeypatch.setattr(cache, "package_code", lambda: "another")
        assert folder.cached() == {"one": False, "two": False}

    def test_a_changed_program_runs_its_command_again(self, folder: Folder) -> None:
        (folder.path / "f.xml").write_text("""<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="c" engine="command"><arg>sh</arg><arg>prog.sh</arg><output name="o" type="text"/></node></flow>""")
        (folder.path / "prog.sh").write_text('echo 1 > "$PENSTOCK_OUT_o"')
        assert [folder.cached(), folder.cached()] == [{"c": False}, {"c": True}]
        (folder.path / "prog.sh").write_text('echo 2 > "$PENSTOCK_OUT_o"')
        assert folder.cached() == {"c": False}

    def test_a_dry_run_tells_what_would_run_and_does_nothing(self, folder: Folder) -> None:
        document = folder.run("--dry-run")
        assert [n["status"] for n in document["nodes"]] == ["waiting", "waiting"]
        assert not (folder.path / ".penstock").exists() and not (folder.path / "out").exists()
        folder.run()
        assert folder.cached("--dry-run") == {"one": True, "two": True}


class TestOnly:
    def test_one_node_runs_on_what_an_earlier_run_left(self, folder: Folder) -> None:
        folder.run()
        document = folder.run("--only", "two", "--force")
        assert [(n["name"], n["cached"]) for n in document["nodes"]] == [("two", False)]

    def test_without_an_earlier_run_it_says_what_is_missing(self, folder: Folder) -> None:
        folder.run("--only", "two", status=2)
        assert "RUN012" in folder.said and "node 'two' reads one.kept, which no run has left yet" in folder.said

    def test_a_misspelt_node_is_told(self, folder: Folder) -> None:
        folder.run("--only", "tow", status=2)
        assert "did you mean 'two'?" in folder.said


class TestResume:
    def test_finished_nodes_stay_and_the_rest_runs_in_the_same_run(self, folder: Folder) -> None:
        folder.break_it()
        failed = folder.run(status=1)
        assert [n["status"] for n in failed["nodes"]] == ["done", "failed"]
        (folder.path / "f.xml").write_text(FLOW)
        resumed = folder.run("--resume")
        assert resumed["run"] == failed["run"] and resumed["status"] == "done"
        nodes = Path(folder.path, ".penstock/runs", failed["run"], "nodes")
        assert [p.name for p in (nodes / "one").iterdir()] == ["attempt-1"]
        assert sorted(p.name for p in (nodes / "two").iterdir()) == ["attempt-1", "attempt-2"]

    def test_with_nothing_unfinished_it_starts_a_new_run_and_says_so(self, folder: Folder) -> None:
        first = folder.run()
        second = folder.run("--resume")
        assert second["run"] != first["run"] and "nothing to resume" in folder.said

    def test_other_parameters_are_another_run(self, folder: Folder) -> None:
        folder.break_it()
        failed = folder.run(status=1)
        assert folder.run("--resume", "--set", "least=1", status=1)["run"] != failed["run"]


class TestLooking:
    def test_a_run_shows_its_lineage(self, folder: Folder) -> None:
        run = folder.run()["run"]
        found = folder.command("runs", run[:-3])
        assert found["run"] == run and found["params"] == {"least": "0"}
        one, two = found["nodes"]
        assert one["inputs"][0]["path"] == str(folder.path / "in.csv") and one["code"]["penstock"]
        assert two["inputs"] == [{"step": "a", "from": "one.kept", "content": one["outputs"]["kept"]["content"]}]

    def test_runs_are_listed_newest_first_and_found_from_anywhere(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        runs = [folder.run()["run"], folder.run()["run"]]
        assert sorted(r["run"] for r in folder.command("runs")) == sorted(runs)
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert folder.command("runs", runs[0])["run"] == runs[0]

    def test_an_unknown_run_is_told(self, folder: Folder) -> None:
        folder.run()
        folder.command("logs", "2020", status=2)
        assert "RUN010" in folder.said

    def test_a_preview_shows_rows_and_writes_nothing(self, folder: Folder) -> None:
        assert folder.command("preview", "f.xml", "one.b", "--set", "least=3") == [{"id": 2, "x": 3}]
        assert not (folder.path / "out").exists()


class TestGc:
    def test_it_only_lists_until_told_yes_and_keeps_what_is_needed(self, folder: Folder) -> None:
        runs = [folder.run()["run"] for _ in range(3)]
        kept = ("--keep", "1", "--days", "0")
        listed = folder.command("gc", *kept)
        assert sorted(r["run"] for r in listed["runs"]) == sorted(runs[:2]) and not listed["removed"]
        assert all(Path(folder.path, ".penstock/runs", r).exists() for r in runs)
        folder.command("gc", *kept, "--yes")
        assert [p.name for p in Path(folder.path, ".penstock/runs").iterdir()] == [runs[2]]
        # The cache still answers, from the run that stayed.
        assert folder.cached() == {"one": True, "two": True}

    def test_the_newest_finished_run_stays_even_behind_failed_ones(self, folder: Folder) -> None:
        done = folder.run()["run"]
        folder.break_it()
        failed = folder.run(status=1)["run"]
        listed = folder.command("gc", "--keep", "0", "--days", "0")
        assert [r["run"] for r in listed["runs"]] == [failed] and done != failed

    def test_feature_plans_stay_for_whoever_needs_them(self, folder: Folder) -> None:
        (folder.path / "features.xml").write_text(FEATURES)
        (folder.path / "f.xml").write_text(MAPPED)
        plans = folder.path / ".penstock/plans"
        folder.run()
        kept = {p.relative_to(plans): p.read_bytes() for p in plans.rglob("*") if p.is_file()}
        assert kept
        folder.run("--force")
        assert len(folder.command("gc", "--keep", "0", "--days", "0", "--yes")["runs"]) == 1
        assert {p.relative_to(plans): p.read_bytes() for p in plans.rglob("*") if p.is_file()} == kept

    def test_what_a_killed_run_left_beside_its_outputs_goes_and_what_a_live_one_writes_stays(
        self, folder: Folder
    ) -> None:
        (folder.path / "f.xml").write_text(HANGS)
        left = folder.path / "out/.rows.penstock-new"
        running = folder.start()
        wait_for(lambda: (left / "half").exists() and (left / "half").read_text().endswith("\n"))
        assert folder.command("gc")["left_aside"] == []
        assert folder.command("gc", "--yes")["left_aside"] == [] and (left / "half").exists()
        worker = (left / "half").read_text()
        os.kill(int(worker), signal.SIGKILL)
        assert running.wait(60) == 1
        [listed] = folder.command("gc")["left_aside"]
        assert listed == {"path": str(left), "size_bytes": len(worker), "removed": False} and (left / "half").exists()
        (folder.path / "out/.other.penstock-new").write_text("of no output that a run declared")
        assert folder.command("gc", "--yes")["left_aside"] == [listed | {"removed": True}]
        assert [p.name for p in (folder.path / "out").iterdir()] == [".other.penstock-new"]
        assert folder.command("gc")["left_aside"] == []


def test_a_day_without_rows_passes_through_json_where_its_columns_are_named(folder: Folder) -> None:
    through_json = FLOW.replace('name="kept" type="parquet"', 'name="kept" type="json"')
    (folder.path / "f.xml").write_text(through_json)
    failed = folder.run("--set", "least=9", status=1)["nodes"][1]
    assert failed["problems"] and "DATA009" in str(failed["problems"])
    named = through_json.replace('from="one.kept"', 'from="one.kept" columns="id x"')
    (folder.path / "f.xml").write_text(named)
    done = folder.run("--set", "least=9")
    assert done["nodes"][1]["rows"] == 0 and (folder.path / "out/two.csv").read_text() == "id,x\n"
    attempt = folder.path / ".penstock/runs" / done["run"] / "nodes/two/attempt-1"
    assert any("DATA009 warning: " in p.read_text() for p in attempt.iterdir() if p.is_file())


def test_a_store_of_a_newer_penstock_is_refused(folder: Folder) -> None:
    import sqlite3

    (folder.path / ".penstock").mkdir()
    with sqlite3.connect(folder.path / ".penstock/store.sqlite") as store:
        store.execute("PRAGMA user_version=99")
    store.close()
    folder.run(status=1)
    assert "RUN011" in folder.said and "newer Penstock" in folder.said
