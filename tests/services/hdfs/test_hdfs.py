"""Flows over a real HDFS, by the command line: what readers see is the old content or the new, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from penstock.data import hadoop, parquet, remote
from penstock.data.paths import resolve
from penstock.data.stores import MANIFEST, filesystem
from penstock.errors import DataError
from penstock.flow.store import RunStore

from .service import Hdfs

ROWS = 6_000
PARTS = 40
CITIES = ["Oslo", "São Paulo", "a/b?c=d", "#1"]

HEAD = (
    '<flow xmlns="urn:penstock:flow:1" name="remote"><param name="at"/><param name="version" type="int" default="1"/>'
)

WRITE = f"""{HEAD}
  <node name="written">
    <input name="rows" type="csv" path="rows.csv" types="id:int"/>
    <process name="more" type="derive" from="rows" columns="${{version}} as version"/>
    <output name="table" type="parquet" from="more" path="${{at}}/table"/>
    <output name="parts" type="parquet" from="more" path="${{at}}/parts" partition_by="city"/>
    <output name="lines" type="csv" from="more" path="${{at}}/lines"/>
    <output name="single" type="csv" from="more" path="${{at}}/single.csv.gz"/>
  </node>
</flow>
"""

AGAIN = f"""{HEAD}
  <node name="again">
    <input name="table" type="parquet" path="${{at}}/table"/>
    <input name="parts" type="parquet" path="${{at}}/parts"/>
    <input name="lines" type="csv" path="${{at}}/lin?s"/>
    <input name="single" type="csv" path="${{at}}/*.csv.gz"/>
    <process name="one" type="sort" from="table" by="id"/>
    <process name="two" type="sort" from="parts" by="id"/>
    <process name="three" type="sort" from="lines" by="id"/>
    <process name="four" type="sort" from="single" by="id"/>
    <output name="table_out" type="parquet" from="one" path="out/table.parquet"/>
    <output name="parts_out" type="parquet" from="two" path="out/parts.parquet"/>
    <output name="lines_out" type="parquet" from="three" path="out/lines.parquet"/>
    <output name="single_out" type="parquet" from="four" path="out/single.parquet"/>
  </node>
</flow>
"""

TABLE = f"""{HEAD}
  <node name="written">
    <input name="rows" type="csv" path="rows.csv"/>
    <process name="more" type="derive" from="rows" columns="${{version}} as version"/>
    <output name="table" type="parquet" from="more" path="${{at}}/table"/>
  </node>
</flow>
"""

MANY = f"""{HEAD}
  <node name="written">
    <input name="rows" type="csv" path="rows.csv"/>
    <process name="more" type="derive" from="rows" columns="${{version}} as version, id % {PARTS} as part"/>
    <output name="many" type="parquet" from="more" path="${{at}}/many" partition_by="part"/>
  </node>
</flow>
"""

ADD = f"""{HEAD}
  <node name="added">
    <input name="rows" type="csv" path="rows.csv"/>
    <process name="few" type="limit" from="rows" rows="10"/>
    <output name="log" type="csv" from="few" path="${{at}}/log" mode="append"/>
    <output name="table" type="parquet" from="few" path="${{at}}/table" mode="append"/>
  </node>
</flow>
"""

READ = f"""{HEAD}
  <node name="read">
    <input name="table" type="parquet" path="${{at}}/table"/>
    <process name="few" type="aggregate" from="table" columns="count(*) as n"/>
    <output name="copy" type="parquet" from="few" path="out/copy.parquet"/>
  </node>
</flow>
"""


class Project:
    """A folder with flows, and a place of its own on HDFS."""

    def __init__(self, folder: Path, at: str) -> None:
        self.folder, self.at = folder, at
        self.fs, self.root = filesystem(at)
        self.environment = {k: v for k, v in os.environ.items() if k != "PENSTOCK_HOME"}
        self.environment["XDG_STATE_HOME"] = str(folder / "state")
        self.environment["TMPDIR"] = str(folder / "tmp")
        (folder / "tmp").mkdir()
        self.rows = pl.DataFrame({"id": range(ROWS), "city": [CITIES[i % len(CITIES)] for i in range(ROWS)]})
        self.rows.write_csv(folder / "rows.csv")
        for name, text in {
            "write": WRITE,
            "again": AGAIN,
            "table": TABLE,
            "many": MANY,
            "add": ADD,
            "read": READ,
        }.items():
            (folder / f"{name}.xml").write_text(text)

    def command(self, verb: str, flow: str, *more: str) -> list[str]:
        at = [] if any(text.startswith("at=") for text in more) else ["--set", f"at={self.at}"]
        return [sys.executable, "-m", "penstock.cli", "flow", verb, f"{flow}.xml", "--json", *at, *more]

    def start(self, verb: str, flow: str, *more: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = self.command(verb, flow, *more)
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, flow: str, *more: str) -> dict[str, Any]:
        process = self.start("run", flow, *more)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        return dict(json.loads(out))

    def refused(self, verb: str, flow: str, *more: str) -> tuple[list[dict[str, Any]], float]:
        started = time.monotonic()
        process = self.start(verb, flow, *more)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2, out + err
        assert "Traceback" not in out + err, out + err
        return list(json.loads(out)), time.monotonic() - started

    def table(self, name: str) -> pl.DataFrame:
        return parquet.scan(resolve(f"{self.at}/{name}"), "parquet").collect()

    def there(self, name: str) -> list[str]:
        """What HDFS itself lists, hidden files and folders included."""
        top = f"{self.root}/{name}"
        return [path[len(top.rstrip("/")) + 1 :] for path in self.fs.find(top, withdirs=True)]

    def listed(self, name: str) -> list[str]:
        stored = json.loads(self.fs.cat_file(f"{self.root}/{name}/{MANIFEST}"))
        return [file["path"] for file in stored["files"]]

    def worker(self) -> int | None:
        """The process of the newest run's first node, once it is alive."""
        store = RunStore.open(self.folder / ".penstock")
        try:
            found = [a for run in store.runs()[:1] for a in store.attempts(run.run)]
            return next((int(a["pid"]) for a in found if a["pid"] and a["ended"] is None), None)
        finally:
            store.close()


@pytest.fixture
def project(tmp_path: Path, hdfs: Hdfs) -> Iterator[Project]:
    yield Project(tmp_path, f"{hdfs.url}/{tmp_path.name}")


def test_replacing_leaves_the_new_files_alone_and_they_read_back_as_written(project: Project) -> None:
    for version in (1, 2):
        project.run("write", "--set", f"version={version}")
        for name in ("table", "parts", "lines"):
            files = [path for path in project.there(name) if path.endswith((".parquet", ".csv"))]
            assert sorted(project.listed(name)) == sorted(files)
            folders = {path.rpartition("/")[0] for path in files} - {""}
            assert set(project.there(name)) == {*files, *folders, MANIFEST}, "something else was left"
        assert len(project.listed("parts")) == len(CITIES)
    project.run("again")
    for name in ("table", "parts", "lines", "single"):
        back = pl.read_parquet(project.folder / "out" / f"{name}.parquet")
        assert back.select("id", "city").equals(project.rows), name
        assert set(back["version"]) == {2}, name
    assert [p for p in project.there("") if "single" in p] == ["single.csv.gz"]


def test_a_node_killed_in_the_middle_of_replacing_leaves_readers_the_old(project: Project) -> None:
    staging = project.folder / "staging"
    for part in range(PARTS):
        (staging / f"part={part}").mkdir(parents=True)
        pl.DataFrame({"id": [part], "version": [1]}).write_parquet(staging / f"part={part}" / "0.parquet")
    remote.replace(f"{project.at}/many", staging, "first")
    before = project.listed("many")
    second = project.start("run", "many", "--set", "version=2")
    deadline = time.monotonic() + 60
    while len(project.there("many")) <= 2 * PARTS + 1 + 3:  # some new files are up, most are not
        assert time.monotonic() < deadline and second.poll() is None
    pid = project.worker()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 1 and "Traceback" not in err, out + err
    assert project.listed("many") == before
    assert len(project.there("many")) > 2 * PARTS + 1, "the kill came too late to prove anything"
    assert len(list((project.folder / "tmp").glob("penstock-upload-*"))) == 1
    old = project.table("many")
    assert old.height == PARTS and set(old["version"]) == {1}

    project.run("many", "--set", "version=2", "--resume")
    assert set(project.table("many")["version"]) == {2} and project.table("many").height == ROWS
    assert len(project.there("many")) == 2 * PARTS + 1, "the dead run's files stay"
    assert list((project.folder / "tmp").glob("penstock-upload-*")) == []


def test_until_its_first_listing_a_folder_of_another_program_keeps_its_content(project: Project) -> None:
    pl.DataFrame({"version": [0, 0]}).write_parquet(project.folder / "old.parquet")
    project.fs.makedirs(f"{project.root}/table")
    project.fs.put_file(str(project.folder / "old.parquet"), f"{project.root}/table/part-0.parquet")
    staging = project.folder / "staging"
    staging.mkdir()
    for number in (1, 2):
        pl.DataFrame({"version": [1]}).write_parquet(staging / f"{number}.parquet")
    seen = []
    put = type(project.fs).put_file

    def looking(self: Any, lpath: str, rpath: str, **more: Any) -> None:
        put(self, lpath, rpath, **more)
        seen.append(project.table("table")["version"].to_list())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(project.fs), "put_file", looking)
        remote.replace(f"{project.at}/table", staging, "run-node-output")
    assert seen == [[0, 0], [0, 0]]
    assert project.table("table")["version"].to_list() == [1, 1]


def test_appending_adds_one_file_a_run_and_the_cache_answers_for_what_did_not_change(project: Project) -> None:
    def cached() -> bool:
        return bool(project.run("read")["nodes"][0]["cached"])

    project.run("table")
    assert [cached(), cached()] == [False, True]
    for runs in (1, 2):
        project.run("add")
        assert len(project.there("log")) == runs
        assert project.table("table").height == ROWS + 10 * runs
    assert len(project.listed("table")) == 3
    assert cached() is False
    assert pl.read_parquet(project.folder / "out" / "copy.parquet")["n"].to_list() == [ROWS + 20]


def test_what_is_wrong_with_an_address_is_said_at_check_and_soon(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fs.pipe_file(f"{project.root}/tabel/x.csv", b"a\n1\n")
    problems, _ = project.refused("check", "read")
    assert [p["code"] for p in problems] == ["DATA001"]
    assert f"{project.at}/table" in problems[0]["message"] and "tabel" in problems[0]["hint"]

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"hdfs://127.0.0.1:{nobody.getsockname()[1]}/x"
        problems, seconds = project.refused("check", "read", "--set", f"at={address}")
        assert [p["code"] for p in problems] == ["DATA023"] and "refused" in problems[0]["message"]
        assert seconds < 15
        nobody.listen()  # takes the call, says nothing
        monkeypatch.setattr(hadoop, "ANSWER_SECONDS", 0.5)
        with pytest.raises(DataError, match="did not answer") as silent:
            resolve(address)
        assert silent.value.code == "DATA023"


def test_a_refused_permission_names_user_and_folder(project: Project) -> None:
    project.fs.makedirs(project.root)
    project.environment["HADOOP_USER_NAME"] = "mallory"
    process = project.start("run", "table", "--set", "version=3")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in out + err, out + err
    assert "DATA012" in out + err and "user=mallory" in out + err
    assert project.there("") == []
