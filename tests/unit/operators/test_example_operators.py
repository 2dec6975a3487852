"""The example package of user operators works as its README says: by `class=`, through the command line."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from penstock.operators.base import Operator

PACKAGE = Path(__file__).resolve().parents[3] / "examples" / "operators"

CLICKS = [
    ("u1", "2026-01-01 10:00:00", 1.5),
    ("u2", "2026-01-01 10:05:00", None),
    ("u1", "2026-01-01 10:29:00", 2.0),
    ("u1", "2026-01-01 11:00:00", 3.0),
    (None, "2026-01-01 11:00:00", 4.0),
    ("ü", None, 5.0),
]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "shop.sqlite"
    db = sqlite3.connect(file)
    db.execute("create table clicks (user_id text, ts text, price real)")
    db.executemany("insert into clicks values (?, ?, ?)", CLICKS)
    db.commit()
    db.close()
    return file


def penstock(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PENSTOCK_HOME": str(home)}
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def test_the_flow_runs_and_counts_visits(shop: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow.xml"
    flow.write_text((PACKAGE / "flow.xml").read_text(encoding="utf-8"), encoding="utf-8")
    done = penstock("flow", "run", str(flow), "--set", f"data={shop}", "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["outputs"]["visits.table"]
    db = sqlite3.connect(made)
    rows = db.execute("select user_id, session, clicks, began from visits").fetchall()
    db.close()
    assert [row[:3] for row in rows] == [("u1", 1, 2), ("u1", 2, 1), ("u2", 1, 1), ("ü", None, 1), (None, None, 1)]
    assert rows[0][3].startswith("2026-01-01 10:00:00") and rows[3][3] is None


def test_a_misspelt_column_is_found_at_check_with_a_hint(shop: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow.xml"
    text = (PACKAGE / "flow.xml").read_text(encoding="utf-8").replace('user="user_id"', 'user="usr_id"')
    flow.write_text(text.replace('default="shop.sqlite"', f'default="{shop}"'), encoding="utf-8")
    done = penstock("flow", "check", str(flow), home=tmp_path / "home")
    assert done.returncode == 2
    assert "flow.xml:6: OPER101" in done.stderr and "did you mean 'user_id'?" in done.stderr


def test_the_entry_points_name_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, place in project["entry-points"]["penstock.operators"].items():
        module, _, cls = place.partition(":")
        found = getattr(import_module(module), cls)
        assert issubclass(found, Operator)
        assert name == f"{found.kind}.{found.type}" and found.__doc__ and found.example
