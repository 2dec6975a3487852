"""The door stays light, and says what went wrong with the exit status of the contract."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from penstock.cli import main
from penstock.cli.lazy import LazyGroup
from penstock.errors import Interrupted, PenstockError, Problem, ProblemsFound

HEAVY = {"polars", "pyarrow", "numpy", "pydantic", "sqlglot", "rich", "lightgbm", "numba", "sklearn", "fsspec"}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from penstock.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.strip("[]' ").split(".")[0] for name in done.stderr.split(",")}
    assert loaded & HEAVY == set()
    assert "penstock flow init" in done.stdout


def test_an_unknown_command_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flwo"]) == 2
    assert "did you mean 'flow'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PenstockError("the disk is full", "free some space"), 1),
        (ProblemsFound([Problem("a.xml", 3, "FLOW001", "no such step")]), 2),
        (Interrupted("stopped"), 130),
    ],
)
def test_errors_become_exit_statuses(
    error: PenstockError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: fails)
    assert main(["flow"]) == status
    assert str(error).splitlines()[0] in capsys.readouterr().err


def test_problems_are_json_on_stdout_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def fails(as_json: bool) -> None:
        raise ProblemsFound([Problem("b.xml", 9, "FLOW002", "later"), Problem("a.xml", 1, "FLOW001", "sooner", "hint")])

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: fails)
    assert main(["flow", "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert [p["file"] for p in printed] == ["a.xml", "b.xml"]
    assert set(printed[0]) == {"file", "line", "code", "severity", "message", "hint"}
