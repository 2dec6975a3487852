"""Flows written from the contract alone, by one who had not seen the code: what they found stays found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def penstock(folder: Path, *arguments: str, body: str = "") -> tuple[int, Any, str]:
    """The exit status, what stdout held as JSON, and stderr."""
    if body:
        flow = f'<flow xmlns="urn:penstock:flow:1" name="f">\n<node name="n">\n{body}\n</node>\n</flow>\n'
        (folder / "f.xml").write_text(flow)
    command = [sys.executable, "-m", "penstock.cli", *arguments, "--json"]
    environment = {**os.environ, "PENSTOCK_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_column_that_is_no_identifier_may_be_named_wherever_a_column_may(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"my col","x,y",t\n1,3,u\n1,6,u\n,7,u\n')
    body = """
    <input name="a" type="csv" path="a.csv" types='"x,y":float' columns='"my col" "x,y", t'/>
    <process name="kept" type="clean" from="a" drop_nulls='"my col"'/>
    <process name="sums" type="aggregate" from="kept" by='"my col"' columns='sum("x,y") as "tot al"'/>
    <process name="parts" type="split" from="kept" by="hash" column='"my col"' at="0.5"/>
    <process name="both" type="join" from="kept sums" on='kept."my col" = sums."my col"'/>
    <output name="train" type="csv" from="parts.train" path="train.csv"/>
    <output name="o" type="csv" from="both" path="both.csv"/>
    <output name="folders" type="csv" from="kept" path="folders" partition_by='"my col" t'/>
    """
    status, _, said = penstock(tmp_path, "flow", "run", "f.xml", body=body)
    assert status == 0, said
    assert (tmp_path / "both.csv").read_text() == ('"my col","x,y",t,"tot al"\n1,3.0,u,9.0\n1,6.0,u,9.0\n')
    assert (tmp_path / "folders" / "my%20col=1" / "t=u").is_dir()


def test_wrong_shares_are_one_problem_however_many_ports_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    body = """
    <input name="a" type="csv" path="a.csv"/>
    <process name="parts" type="split" from="a" by="random" at="0.5 0.2 0.3"/>
    <output name="o" type="csv" from="parts.valid"/>
    """
    status, problems, _ = penstock(tmp_path, "flow", "check", "f.xml", body=body)
    assert status == 2
    assert [(p["line"], p["code"]) for p in problems] == [(5, "OPER104")]


@pytest.mark.parametrize("arguments", [("--set", "q"), ("--date", "2026-13-01"), ("--only", "nobody"), ("--jobs", "0")])
def test_a_wrong_request_is_a_json_document_too(tmp_path: Path, arguments: tuple[str, str]) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    body = '<input name="a" type="csv" path="a.csv"/><output name="o" type="csv" from="a"/>'
    status, problems, _ = penstock(tmp_path, "flow", "run", "f.xml", *arguments, body=body)
    assert status == 2
    assert [set(p) for p in problems] == [{"file", "line", "code", "severity", "message", "hint"}]


def test_the_preview_of_an_output_is_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,f\n1,nan\n2,0.5\n")
    body = """
    <input name="a" type="csv" path="a.csv"/>
    <process name="parts" type="split" from="a" by="order" at="0.5"/>
    <output name="o" type="csv" from="parts.test" path="o.csv"/>
    """
    status, rows, _ = penstock(tmp_path, "flow", "preview", "f.xml", "n.o", body=body)
    assert (status, rows) == (0, [{"a": 2, "f": 0.5}])
    assert not (tmp_path / "o.csv").exists()
    status, problems, _ = penstock(tmp_path, "flow", "preview", "f.xml", "n.parts")
    assert (status, problems[0]["hint"]) == (2, "it has parts.train, parts.test")


def test_timestamps_in_json_are_iso_8601(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('t\n2026-01-02 03:04:05\n2026-01-02T03:04:05.25\n""\n')
    body = """
    <input name="a" type="csv" path="a.csv" types="t:timestamp"/>
    <output name="o" type="json" from="a" path="o.json"/>
    """
    assert penstock(tmp_path, "flow", "run", "f.xml", body=body)[0] == 0
    lines = [json.loads(line)["t"] for line in (tmp_path / "o.json").read_text().splitlines()]
    assert lines == ["2026-01-02T03:04:05", "2026-01-02T03:04:05.250", None]


def test_every_reference_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    body = """
    <input name="a" type="csv" path="a.csv"/>
    <output name="o" type="csv" from="a" path="${nobody}/${run.date-3x}/${env.}/${env.NOT_SET_HERE}/${open"/>
    """
    status, problems, _ = penstock(tmp_path, "flow", "check", "f.xml", body=body)
    assert status == 2
    assert [(p["line"], p["code"]) for p in problems] == [
        (5, "FLOW020"),
        (5, "FLOW020"),
        (5, "FLOW021"),
        (5, "FLOW021"),
        (5, "FLOW026"),
    ]


def test_print_shows_its_rows_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("word\nfirst\nsecond\nthird\n")
    body = """
    <input name="a" type="csv" path="a.csv"/>
    <output name="o" type="print" from="a" rows="2"/>
    """
    status, document, said = penstock(tmp_path, "flow", "run", "f.xml", body=body)
    assert status == 0, said
    _, logs, _ = penstock(tmp_path, "flow", "logs", document["run"])
    assert "first" in logs[0]["text"] and "second" in logs[0]["text"] and "third" not in logs[0]["text"]


def test_an_output_refuses_what_only_the_worker_can_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import polars as pl\n"
        "from penstock.operators import Process\n"
        "class Lists(Process):\n"
        "    def run(self, inputs, context):\n"
        "        return inputs[self.from_].with_columns(many=pl.concat_list('a', 'a'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a.csv").write_text("a\n1\n")
    body = """
    <input name="a" type="csv" path="a.csv"/>
    <process name="lists" class="mine:Lists" from="a"/>
    <output name="o" type="csv" from="lists" path="o.csv"/>
    """
    status, document, said = penstock(tmp_path, "flow", "run", "f.xml", body=body)
    assert (status, document["status"]) == (1, "failed")
    assert "f.xml:6: DATA019 output 'o': column 'many' is list<item: int64>, which csv cannot hold" in said
    assert not (tmp_path / "o.csv").exists()


def test_features_apply_goes_by_the_suffix(tmp_path: Path) -> None:
    denses = '<dense name="twice" fn="formula" expr="2 * a"/><dense name="less" fn="formula" expr="a - 1"/>'
    slot = '<slot name="key" id="1" fn="hash" from="a"/>'
    for name, body in {"d.xml": denses, "s.xml": slot}.items():
        (tmp_path / name).write_text(f'<features xmlns="urn:penstock:features:1" name="x">{body}</features>')
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert penstock(tmp_path, "features", "apply", "d.xml", "a.csv", "o.tsv")[0] == 0
    assert (tmp_path / "o.tsv").read_text() == "twice\tless\n2.0\t0.0\n"
    status, problems, _ = penstock(tmp_path, "features", "apply", "s.xml", "a.csv", "o.csv")
    assert (status, [p["code"] for p in problems if p["severity"] == "error"]) == (2, ["DATA019"])
