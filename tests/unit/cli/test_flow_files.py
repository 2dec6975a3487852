"""`penstock flow check|fmt|convert|show|schema|init` and `penstock operators`, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli.main import main

GOOD = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="a" engine="local">
    <input  name="x" type="csv" path="x.csv"/>
    <output name="y" type="parquet" from="x"/>
  </node>
</flow>
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "x.csv").write_text("a,b\n1,x\n", encoding="utf-8")
    (tmp_path / "f.xml").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_flow_is_clean(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "check", "f.xml", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_all_problems_of_all_files_come_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.xml").write_text(GOOD.replace('from="x"', 'from="z"').replace('"csv"', '"cvs"'), encoding="utf-8")
    (folder / "a.json").write_text("{", encoding="utf-8")
    assert main(["flow", "check", "b.xml", "f.xml", "a.json", "none.xml", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [(p["file"], p["line"], p["code"]) for p in found] == [
        ("a.json", 1, "FLOW002"),
        ("b.xml", 3, "OPER001"),
        ("b.xml", 4, "FLOW004"),
        ("none.xml", 0, "FLOW001"),
    ]
    assert {*found[0]} == {"file", "line", "code", "severity", "message", "hint"}
    assert main(["flow", "check", "b.xml"]) == 2
    err = capsys.readouterr().err
    assert "b.xml:4: FLOW004 output 'y' of node 'a' reads from 'z', which is not a step of this node\n  hint: " in err


def test_warnings_alone_are_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "f.xml").write_text(GOOD.replace("    <output", '    <input name="z" type="csv" path="x.csv"/><output'))
    assert main(["flow", "check", "f.xml", "--json"]) == 0
    (problem,) = json.loads(capsys.readouterr().out)
    assert (problem["code"], problem["severity"]) == ("FLOW050", "warning")


def test_values_are_given_on_the_command_line(folder: Path) -> None:
    text = GOOD.replace("  <node", '  <param name="file" type="path"/>\n  <node').replace('"x.csv"', '"${file}"')
    (folder / "f.xml").write_text(text, encoding="utf-8")
    assert main(["flow", "check", "f.xml"]) == 2
    assert main(["flow", "check", "f.xml", "--set", "file=x.csv"]) == 0
    (folder / "p.json").write_text('{"file": "x.csv"}', encoding="utf-8")
    assert main(["flow", "check", "f.xml", "--params", "p.json"]) == 0
    assert main(["flow", "check", "f.xml", "--set", "file"]) == 2


def test_fmt_rewrites_once_and_check_tells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "f.xml").write_text(GOOD.replace('name="x" type="csv"', 'type="csv"  name="x"'), encoding="utf-8")
    assert main(["flow", "fmt", "f.xml", "--check"]) == 1
    assert main(["flow", "fmt", "f.xml"]) == 0
    assert (folder / "f.xml").read_text(encoding="utf-8") == GOOD
    assert main(["flow", "fmt", "f.xml", "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "f.xml", "formatted": True}


def test_conversion_comes_back_byte_for_byte(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form, suffix in (("json", "json"), ("python", "py")):
        assert main(["flow", "convert", "f.xml", "--to", form, "-o", f"g.{suffix}"]) == 0
        assert main(["flow", "convert", f"g.{suffix}", "--to", "xml"]) == 0
        assert capsys.readouterr().out == GOOD


def test_show_tells_and_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "show", "f.xml"]) == 0
    assert "a  [local]\n  x  input csv           <- x.csv\n  y  output parquet      <- x\n" in capsys.readouterr().out
    assert main(["flow", "show", "f.xml", "--plan", "--svg", "f.svg"]) == 0
    assert "writes  run store/a/y.parquet  (replace)" in capsys.readouterr().out
    assert main(["flow", "show", "f.xml", "--plan", "--json"]) == 0
    (node,) = json.loads(capsys.readouterr().out)["nodes"]
    assert node["outputs"] == {"y": {"path": None, "folder": False, "mode": "replace"}}
    from lxml import etree

    texts = etree.parse(folder / "f.svg").xpath("//*[local-name()='text']/text()")
    assert texts == ["a  ·  local", "x", "input csv", "y", "output parquet"]


def test_operators_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"filter", "features", "gbdt_lr"} <= {d["type"] for d in found if d["kind"] == "process"}
    assert main(["operators", "filter"]) == 0
    shown = capsys.readouterr().out
    assert "process filter" in shown
    assert '<process name="' in shown
    assert main(["operators", "fliter"]) == 2
    assert "did you mean 'filter'?" in capsys.readouterr().err


def test_a_class_is_examined(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "--conform", "penstock.operators.tables:Limit"]) == 0
    out = capsys.readouterr().out
    assert "BROKEN" not in out
    assert "promises kept" in out
    assert main(["operators", "--conform", "penstock.operators.nothing:X"]) == 2


# --- files that mean harm -----------------------------------------------------------------------------------


def guarded(path: Path) -> subprocess.CompletedProcess[str]:
    """Check a file in a process that may use 1.5 GB of memory and 60 s of processor."""
    # It limits itself and becomes the command: code between fork and exec would run beside this process's held locks.
    limits = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", limits, "-m", "penstock.cli", "flow", "check", str(path), "--json"]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def billion_laughs(path: Path) -> None:
    entities = '<!ENTITY l0 "lol">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    path.write_text(f"<!DOCTYPE f [{entities}]>" + GOOD.replace('name="f"', 'name="f" description="&l9;"'))


def external_entity(path: Path) -> None:
    path.write_text('<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + GOOD.replace('name="f"', 'name="&x;"'))


def one_gigabyte(path: Path) -> None:
    """1 GB in one attribute, sparse on disk: reading it whole would break the memory limit."""
    with path.open("wb") as file:
        file.write(b'<flow xmlns="urn:penstock:flow:1" name="')
        file.truncate(1_000_000_000)


def deep(path: Path) -> None:
    path.write_text('<flow xmlns="urn:penstock:flow:1" name="f">' + "<a>" * 500_000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (billion_laughs, "DOCTYPE"),
        (external_entity, "DOCTYPE"),
        (one_gigabyte, "larger than 16 MB"),
        (deep, "nested deeper than"),
    ],
)
def test_a_bomb_is_one_problem(tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "bomb.xml"
    make(path)  # type: ignore[operator]
    done = guarded(path)
    assert done.returncode == 2, done.stderr
    (problem,) = json.loads(done.stdout)
    assert problem["code"] == "FLOW002"
    assert said in problem["message"]
    assert "root:" not in done.stdout + done.stderr


# --- the starter --------------------------------------------------------------------------------------------


def test_init_writes_a_flow_that_checks_clean_and_is_formatted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flow", "init", "my-first flow"]) == 0
    flow = folder / "my-first flow" / "my_first_flow.xml"
    assert main(["flow", "check", str(flow), "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main(["flow", "fmt", str(flow), "--check"]) == 0
    assert len((flow.parent / "data" / "clicks.csv").read_text().splitlines()) == 1_001
    assert main(["flow", "init", "my-first flow"]) == 2
    assert "is there already" in capsys.readouterr().err
