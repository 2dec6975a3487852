"""The user's own functions: at native speed on both paths, never shipped, and recognised when they change."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import polars as pl
import pytest

from penstock.data.schema import Schema
from penstock.errors import DataError
from penstock.features import Plan, check, load, read

from .reference import Reference
from .test_examples import plan_of

FILE = """<features xmlns="urn:penstock:features:1" name="own">
  <define name="h" fn="mapping:half" from="x"/>
  <slot name="bucket" id="1" fn="piecewise" from="h" bounds="1, 2"/>
  <slot name="keys" id="2" fn="mapping:mixed" from="tags" null="key"/>
  <slot name="pair" id="3" fn="mapping:both" from="i bucket"/>
  <slot name="index" id="4" fn="mapping:or_zero" from="i"/>
  <dense name="known" fn="mapping:or_zero" from="x"/>
  <dense name="area" fn="mapping:area" from="x i"/>
</features>"""

ROWS = pl.DataFrame(
    {"x": [4.0, None, math.inf, -0.0], "i": [7, 0, None, 12], "tags": [["a", None], [], None, ["b"]]},
    schema={"x": pl.Float64, "i": pl.Int64, "tags": pl.List(pl.String)},
)


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sys.modules.pop("mapping", None)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(FILE, tmp_path)


def test_columns_and_rows_call_the_same_machine_code(plan: Plan) -> None:
    import mapping

    functions = {f"mapping:{n}": getattr(mapping, n) for n in ("half", "mixed", "both", "or_zero", "area")}
    reference = Reference(plan.document, functions=functions)
    mapped = plan.apply(ROWS)
    for i, row in enumerate(ROWS.iter_rows(named=True)):
        expected = {name: dense if keys is None else keys for name, keys, _, dense in reference.row(row)}
        single = {name: dense if keys is None else keys for name, keys, _, dense in plan.apply_row(row)}
        assert {name: mapped[name].to_list()[i] for name in expected} == expected
        assert single == expected


def test_the_plan_holds_a_name_and_a_hash_never_source(plan: Plan) -> None:
    assert set(plan.document["functions"]["mapping:mixed"]) == {"sha256", "takes"}
    assert plan.document["functions"]["mapping:mixed"]["takes"] == "u64"
    assert "return" not in plan.json


def test_a_changed_function_is_refused_by_name(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan.save(tmp_path / "plan")
    other = tmp_path / "other"
    other.mkdir()
    source = (Path(__file__).parent / "mapping.py").read_text()
    (other / "mapping.py").write_text(source.replace("x / 2", "x / 3"))
    monkeypatch.syspath_prepend(str(other))
    sys.modules.pop("mapping", None)
    with pytest.raises(DataError, match="'mapping:half' is not the function the plan was made with"):
        load(str(tmp_path / "plan")).apply(ROWS)
    (other / "mapping.py").write_text("x = 1\n")
    sys.modules.pop("mapping", None)
    with pytest.raises(DataError, match=r"module 'mapping' has no function '(area|half)'"):
        load(str(tmp_path / "plan")).apply(ROWS)


def test_what_numba_cannot_compile_is_said(tmp_path: Path) -> None:
    dense = '<dense name="u" fn="mapping:unsupported" from="x"/>'
    text = f'<features xmlns="urn:penstock:features:1" name="x">{dense}</features>'
    with pytest.raises(DataError, match="'mapping:unsupported' cannot be compiled"):
        plan_of(text, tmp_path).apply(ROWS)


def test_a_wrong_number_of_inputs_is_found_at_check(tmp_path: Path) -> None:
    path = tmp_path / "features.xml"
    path.write_text(
        '<features xmlns="urn:penstock:features:1" name="x">'
        '<dense name="a" fn="mapping:area" from="x"/><dense name="n" fn="mapping:none" from="x"/></features>'
    )
    file, _ = read(path)
    assert file is not None
    said = [fault.message for fault in check(file, Schema.unknown()).faults]
    assert said == [
        "dense 'a': 'mapping:area' reads 2, and from has 1: x",
        "dense 'n': 'mapping:none' takes 0 arguments; a feature function takes 1 to 4 numbers",
    ]
