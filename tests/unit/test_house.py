"""The walls of the house that import-linter cannot see."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "penstock"
NATIVE = re.compile(r"^\s*(?:from penstock import .*\b_native\b|from penstock\._native|import penstock\._native)", re.M)


def test_only_native_py_opens_the_door_to_rust() -> None:
    found = [p.name for p in SOURCE.rglob("*.py") if NATIVE.search(p.read_text(encoding="utf-8"))]
    assert found == ["native.py"]


def test_no_dumping_grounds() -> None:
    banned = {"utils", "helpers", "common", "core", "manager"}
    assert [p for p in SOURCE.rglob("*.py") if p.stem in banned or p.parent.name in banned] == []
