"""Rows that are mapped where they are read are those that Polars would hand through."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa
import pytest

from penstock.data import csv_files
from penstock.data.frames import source_of
from penstock.data.paths import resolve as found
from penstock.data.schema import Schema
from penstock.data.text_files import Rejecting
from penstock.engines.local_count import Counters
from penstock.errors import DataError
from penstock.features import Plan, check, read
from penstock.features.operators import apply_lazily
from penstock.features.resolve import resolve

FEATURES = """<features xmlns="urn:penstock:features:1" name="t" seed="7">
  <slot name="who" id="1" fn="hash" from="user"/>
  <slot name="both" id="2" fn="combine" from="user city"/>
  <slot name="place" id="3" fn="identity" from="at"/>
  <dense name="price" fn="identity" from="price" default="0"/>
</features>"""
ROWS = 60_000  # some megabytes: several chunks


def plan(folder: Path) -> Plan:
    (folder / "features.xml").write_text(FEATURES)
    file, faults = read(folder / "features.xml")
    assert file is not None and not faults, faults
    checked = check(file, Schema.unknown())
    assert not checked.failed, checked.faults
    return resolve(checked)


def rows(folder: Path, rejecting: Rejecting, wrong: int | None = None) -> pl.LazyFrame:
    lines = ["user,city,at,price,click"]
    for i in range(ROWS):
        at = -5 if i == wrong else i % 100
        lines.append(f"user-{i * 7919 % 9973},{'' if i % 5 == 0 else i % 17},{at},{i / 8},{i % 2}{',' * (i == 12_345)}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    types = (("user", "str"), ("city", "str"), ("at", "int"), ("price", "float"), ("click", "int"))
    files = found(str(folder / "rows.csv"), base=folder)
    return csv_files.scan(files, csv_files.Dialect(), types, rejecting, threads=2)


@pytest.mark.parametrize("form", ["slots", "flat"])
def test_they_are_the_same_rows(tmp_path: Path, form: Literal["slots", "flat"]) -> None:
    told: list[str] = []
    frame = rows(tmp_path, Rejecting("drop", "", told.append))
    counted = Counters(lambda name, count: None)
    first: list[pa.Table] = []
    mapped = apply_lazily(plan(tmp_path), counted.through("rows", frame), ["click"], form, 2, first.append)
    source = source_of(mapped)
    assert source is not None
    batches = list(source.batches(None))
    assert [t.num_rows for t in first] == [64] and first[0]["user"].to_pylist()[:2] == ["user-0", "user-7919"]
    assert len(batches) > 2 and told == ["1 bad row(s) dropped"]
    assert counted.rows == {"rows": ROWS - 1}
    direct = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches)))
    assert direct.equals(mapped.collect())
    assert source_of(mapped.head(5)) is None and source_of(mapped.select("click")) is None


def test_a_row_without_a_meaning_is_named(tmp_path: Path) -> None:
    frame = rows(tmp_path, Rejecting("drop", "", lambda said: None), wrong=50_000)
    mapped = apply_lazily(plan(tmp_path), frame, ["click"], "flat", 2)
    source = source_of(mapped)
    assert source is not None
    with pytest.raises(DataError) as direct:
        list(source.batches(None))
    with pytest.raises(Exception) as through:
        mapped.collect()
    assert direct.value.code == "FEAT025"
    assert direct.value.message in str(through.value)
    assert "row 50,000:" in direct.value.message, "the bad line before it is no row"


def test_a_bad_line_is_told_as_ever(tmp_path: Path) -> None:
    mapped = apply_lazily(plan(tmp_path), rows(tmp_path, Rejecting()), ["click"], "flat", 2)
    source = source_of(mapped)
    assert source is not None
    with pytest.raises(DataError, match=r"rows\.csv:12347") as told:
        list(source.batches(None))
    assert told.value.code == "DATA007"


def test_kept_strings_come_through_polars(tmp_path: Path) -> None:
    frame = rows(tmp_path, Rejecting("drop", "", lambda said: None))
    assert source_of(apply_lazily(plan(tmp_path), frame, ["user"], "flat", 2)) is None
