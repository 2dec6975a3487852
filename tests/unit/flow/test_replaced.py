"""A folder of data is replaced, whoever wrote it; a folder of somebody's work is not. Through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import main
from penstock.data.strangers import LOOKED_AT, stranger

WRITES = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="n">
    <input name="a" type="csv" path="in.csv"/>
    <output name="kept" type="csv" from="a" path="out"/>
  </node>
</flow>
"""
#: The first node leaves a note where the second one writes; it takes its rows from nobody.
APPEARS = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="first" engine="command">
    <arg>sh</arg><arg>-c</arg><arg>mkdir out; echo mine > out/README.md; echo a > $PENSTOCK_OUT_o</arg>
    <output name="o" type="csv" path="o.csv"/>
  </node>
  <node name="n" after="first">
    <input name="a" type="csv" path="in.csv"/>
    <output name="kept" type="csv" from="a" path="out"/>
  </node>
</flow>
"""
PROGRAM = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="n" engine="command">
    <arg>sh</arg><arg>-c</arg><arg>mkdir $PENSTOCK_OUT_o/pages; echo hi > $PENSTOCK_OUT_o/pages/a.html</arg>
    <output name="o" type="text" path="out"/>
  </node>
</flow>
"""


class Folder:
    """A flow in a folder, and its commands, run in this process."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys, self.out = path, capsys, path / "out"
        (path / "in.csv").write_text("id\n1\n")
        self.flow(WRITES)

    def flow(self, text: str) -> None:
        (self.path / "f.xml").write_text(text)

    def command(self, *arguments: str, status: int = 0) -> Any:
        self.capsys.readouterr()
        ended = main(["flow", *arguments, "--json"])
        said = self.capsys.readouterr()
        assert ended == status, said.out + said.err
        return json.loads(said.out)

    def put(self, *names: str) -> None:
        for name in names:
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            (self.out / name).write_text("mine\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("PENSTOCK_HOME", raising=False)
    return Folder(tmp_path, capsys)


@pytest.mark.parametrize("name", ["README.md", "src/main.py", ".git/HEAD", "a=1/notes.txt.bak", "part.parquet"])
def test_what_is_no_data_is_a_problem_before_anything_runs(folder: Folder, name: str) -> None:
    folder.put("rows.csv", name)
    [problem] = folder.command("check", "f.xml", status=2)
    told = name if "=" in name else name.partition("/")[0] + "/" * ("/" in name)
    assert (problem["line"], problem["code"]) == (4, "DATA024")
    assert (
        problem["message"]
        == f"output 'n.kept' would replace the folder out, and delete '{told}', which no run of ours wrote"
    )
    assert "empty the folder" in problem["hint"]
    folder.command("run", "f.xml", status=2)
    assert (folder.out / name).read_text() == (folder.out / "rows.csv").read_text() == "mine\n"


def test_data_of_any_writer_is_replaced(folder: Folder) -> None:
    folder.put("part-00000", "000000_0", "rows.csv.gz", "dt=2026-01-01/city=Oslo/A.CSV", "_SUCCESS", ".part-00000.crc")
    assert folder.command("check", "f.xml") == []
    folder.command("run", "f.xml")
    assert [p.read_text() for p in folder.out.iterdir()] == ["id\n1\n"]


def test_what_appears_after_the_check_stops_the_node_and_stays(folder: Folder) -> None:
    folder.flow(APPEARS)
    assert folder.command("check", "f.xml") == []
    document = folder.command("run", "f.xml", status=1)
    failed = document["nodes"][1]
    assert failed["code"] == "DATA024" and "README.md" in failed["error"]
    assert [p.name for p in folder.out.iterdir()] == ["README.md"]


def test_what_a_run_on_record_wrote_is_ours_whatever_it_is(folder: Folder) -> None:
    folder.flow(PROGRAM)
    folder.command("run", "f.xml")
    (folder.out / "pages" / "b.html").write_text("left by hand")
    assert folder.command("check", "f.xml") == []
    folder.command("run", "f.xml", "--force")
    assert [p.name for p in (folder.out / "pages").iterdir()] == ["a.html"]
    shutil.rmtree(folder.path / ".penstock")
    [problem] = folder.command("check", "f.xml", status=2)
    assert problem["code"] == "DATA024" and "'pages/'" in problem["message"]


def test_appending_deletes_nothing_and_is_not_asked(folder: Folder) -> None:
    folder.put("README.md")
    folder.flow(WRITES.replace('path="out"', 'path="out" mode="append"'))
    folder.command("run", "f.xml")
    assert (folder.out / "README.md").read_text() == "mine\n"


def test_a_bundle_is_ours_and_a_manifest_of_others_is_not(tmp_path: Path) -> None:
    assert stranger(tmp_path / "nowhere", ()) == ""
    (tmp_path / "models").mkdir()
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    assert stranger(tmp_path, ("\0",)) == "manifest.json"
    (tmp_path / "manifest.json").write_text('{"libraries": {"penstock": "1.0"}}')
    assert stranger(tmp_path, ("\0",)) == ""


def test_a_huge_folder_is_known_by_its_first_entries(tmp_path: Path) -> None:
    for number in range(LOOKED_AT):
        (tmp_path / f"{number:05}.csv").touch()
    (tmp_path / "zz").touch()
    assert stranger(tmp_path, (".csv",)) == ""
    assert stranger(tmp_path, (".parquet",)) == "00000.csv"
