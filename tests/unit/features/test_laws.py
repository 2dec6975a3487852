"""Columnar, one row and the slow reference are one function: for random files, rows, chunks and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.schema import Schema
from penstock.features import Plan, check, read
from penstock.features.resolve import resolve

from .reference import Reference
from .strategies import CITIES, SCHEMA, batch, files, rows

#: libm's logarithms and numpy's may differ in the last bit of f64, which can show in the last of f32.
INEXACT = {"log", "log10", "log1p"}

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SOAK = settings(SLOW, max_examples=5_000)


def planned(text: str, folder: Path) -> Plan:
    (folder / "cities.txt").write_text("".join(f"{city}\n" for city in CITIES), encoding="utf-8")
    path = folder / "features.xml"
    path.write_text(text, encoding="utf-8")
    file, faults = read(path)
    assert file is not None and not faults, faults
    checked = check(file, Schema.from_arrow(SCHEMA))
    assert not checked.failed, checked.faults
    return resolve(checked)


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="penstock-laws-"))


def outputs(plan: Plan, mapped: pa.RecordBatch) -> list[list[tuple[str, Any, Any, Any]]]:
    """A mapped batch as the rows that `apply_row` gives."""
    columns = {name: mapped.column(name).to_pylist() for name in mapped.schema.names}
    found = []
    for i in range(mapped.num_rows):
        row: list[tuple[str, Any, Any, Any]] = []
        for name in plan.slots:
            weights = columns[f"{name}__weight"][i] if name in plan.weighted else None
            row.append((name, columns[name][i], weights, None))
        row += [(name, None, None, columns[name][i]) for name in plan.dense]
        found.append(row)
    return found


def by_kind(row: Sequence[tuple[str, Any, Any, Any]]) -> list[tuple[str, Any, Any, Any]]:
    """Slots before denses, as columns stand."""
    return sorted(row, key=lambda out: out[1] is None)


def assert_same(plan: Plan, ours: Sequence[Any], theirs: Sequence[Any], exact: bool) -> None:
    assert [out[0] for out in ours] == [out[0] for out in theirs]
    fn = {item["name"]: item["fn"] for item in plan.items}
    for (name, keys, weights, dense), (_, expected_keys, expected_weights, expected_dense) in zip(
        ours, theirs, strict=True
    ):
        assert keys == expected_keys, name
        assert (weights or []) == (expected_weights or []), name
        if dense is None:
            assert expected_dense is None, name
        elif exact or fn[name] not in INEXACT:
            assert (
                np.float32(dense).tobytes() == np.float32(expected_dense).tobytes() or dense == expected_dense == 0
            ), name
        else:
            assert abs(dense - expected_dense) <= np.spacing(np.float32(abs(expected_dense))), name


def inexact_below(plan: Plan) -> bool:
    """Whether some item builds on a logarithm: then a last bit may decide a bound."""
    return any(
        plan.items[source["item"]]["fn"] in INEXACT
        for item in plan.items
        for source in item["from"]
        if "item" in source
    )


@SLOW
@given(text=files(), data=st.lists(rows(), min_size=1, max_size=8))
def test_columnar_is_one_row_is_the_reference(folder: Path, text: str, data: list[dict[str, Any]]) -> None:
    assert_one_function(folder, text, data)


@pytest.mark.soak
@SOAK
@given(text=files(), data=st.lists(rows(), min_size=1, max_size=8))
def test_columnar_is_one_row_is_the_reference_five_thousand_times(
    folder: Path, text: str, data: list[dict[str, Any]]
) -> None:
    assert_one_function(folder, text, data)


def assert_one_function(folder: Path, text: str, data: list[dict[str, Any]]) -> None:
    plan = planned(text, folder)
    reference = Reference(plan.document, {"cities": CITIES})
    columnar = outputs(plan, plan.apply(batch(data), threads=1))
    for row, ours in zip(data, columnar, strict=True):
        single = by_kind(plan.apply_row({name: row[name] for name in plan.columns}))
        assert_same(plan, single, ours, exact=True)
        if not inexact_below(plan):
            assert_same(plan, ours, by_kind(reference.row(row)), exact=False)


@SLOW
@given(
    text=files(),
    data=st.lists(rows(), min_size=2, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    threads=st.integers(1, 4),
)
def test_chunks_and_threads_change_nothing(
    folder: Path, text: str, data: list[dict[str, Any]], cuts: list[int], threads: int
) -> None:
    plan = planned(text, folder)
    whole = plan.apply(batch(data), threads=1)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    full = batch(data)
    parts = [plan.apply(full.slice(a, b - a), threads=threads) for a, b in pairwise(places)]
    assert outputs(plan, whole) == [row for part in parts for row in outputs(plan, part)]


def test_many_rows_over_many_threads_are_the_rows_one_by_one(folder: Path) -> None:
    text = """<features xmlns="urn:penstock:features:1" name="wide">
      <define name="pieces" fn="split" from="s" sep="|"/>
      <slot name="a" id="1" fn="hash" from="s"/>
      <slot name="b" id="2" fn="hash" from="pieces" null="key"/>
      <slot name="c" id="3" fn="combine" from="a i"/>
      <slot name="d" id="4" fn="descartes" from="pieces ls" weight="w"/>
      <dense name="e" fn="formula" expr="f * 2 + i"/>
    </features>"""
    plan = planned(text, folder)
    empty = dict.fromkeys(SCHEMA.names)
    data = [
        empty
        | {"s": "|".join("xyz"[: i % 4]) if i % 7 else None, "i": i, "ls": ["p"] * (i % 3), "w": i / 7, "f": i / 3}
        for i in range(20_011)
    ]
    one = plan.apply(batch(data), threads=1)
    many = plan.apply(batch(data), threads=4)
    assert one.equals(many)
    for i in (0, 1, 7, 4095, 4096, 8191, 8192, 20_010):
        single = by_kind(plan.apply_row({name: data[i][name] for name in plan.columns}))
        assert_same(plan, single, outputs(plan, one.slice(i, 1))[0], exact=True)
