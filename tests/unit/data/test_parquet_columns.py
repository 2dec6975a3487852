"""Mapped samples as the native reader gives them: the same rows as Arrow's, whoever wrote the file and however."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.data import parquet, parquet_columns
from penstock.data.paths import resolve
from penstock.errors import DataError

ROWS = 5000


def samples(nulls: str = "") -> pa.Table:
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 6, ROWS)
    lengths[:2] = 0
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    keys = pa.array(rng.integers(0, 2**63, offsets[-1]).astype(np.uint64))
    weights = pa.array(rng.random(offsets[-1]).astype(np.float32))
    columns: dict[str, Any] = {
        "label": pa.array(rng.integers(0, 2, ROWS).astype(np.int8)),
        "keys": pa.LargeListArray.from_arrays(pa.array(offsets), keys),
        "weights": pa.LargeListArray.from_arrays(pa.array(offsets), weights),
        "price": pa.array(rng.random(ROWS)),
        "clicked": pa.array(rng.random(ROWS) < 0.5),
    }
    if nulls == "list":
        columns["keys"] = pa.array([None if i == 4000 else [i] for i in range(ROWS)], pa.list_(pa.int64()))
    if nulls == "element":
        columns["keys"] = pa.array([[None, i] if i == 4000 else [i] for i in range(ROWS)], pa.list_(pa.int64()))
    if nulls == "number":
        columns["price"] = pa.array([None if i == 4000 else 1.0 for i in range(ROWS)])
    return pa.table(columns)


def read(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    frame = parquet.scan(resolve(str(path)), "parquet")
    return (frame.select(columns) if columns else frame).collect()


WRITERS: dict[str, dict[str, Any]] = {
    "plain": {"compression": "none", "use_dictionary": False},
    "zstd": {"compression": "zstd", "use_dictionary": ["label"]},
    "dictionaries": {"compression": "none", "use_dictionary": True},
    "small pages and groups": {
        "compression": "zstd",
        "data_page_size": 600,
        "write_batch_size": 50,
        "row_group_size": 700,
    },
    "snappy": {"compression": "snappy"},
    "second version of pages": {"compression": "none", "data_page_version": "2.0"},
    "other encodings": {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": {"price": "BYTE_STREAM_SPLIT"},
    },
}


@pytest.mark.parametrize("writer", WRITERS)
def test_rows_are_those_that_were_written(tmp_path: Path, writer: str) -> None:
    pq.write_table(samples(), tmp_path / "a.parquet", **{"compression": "zstd", **WRITERS[writer]})
    expected = pl.DataFrame(samples())
    assert read(tmp_path / "a.parquet").equals(expected)
    assert read(tmp_path / "a.parquet", ["keys", "label"]).equals(expected.select("keys", "label"))
    assert read(tmp_path / "a.parquet", ["label"]).equals(expected.select("label"))


@pytest.mark.parametrize("nulls", ["list", "element", "number"])
def test_nulls_that_come_late_change_the_reader_and_no_row(tmp_path: Path, nulls: str) -> None:
    pq.write_table(samples(nulls), tmp_path / "a.parquet", row_group_size=1000, compression="none")
    assert read(tmp_path / "a.parquet").equals(pl.DataFrame(samples(nulls)))


@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
def test_what_penstock_writes_is_read_natively(
    tmp_path: Path, compression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.DataFrame(samples())
    frame.write_parquet(tmp_path / "a.parquet", compression=compression, row_group_size=1500)
    # Nobody else may help.
    monkeypatch.setattr(parquet, "_raw", None)
    assert read(tmp_path / "a.parquet").equals(frame)
    assert read(tmp_path / "a.parquet").height == ROWS


def test_filters_heads_and_several_files(tmp_path: Path) -> None:
    frame = pl.DataFrame(samples())
    for name, part in (("a", frame.head(3000)), ("b", frame.tail(2000))):
        part.write_parquet(tmp_path / f"{name}.parquet")
    scanned = parquet.scan(resolve(str(tmp_path)), "parquet")
    assert scanned.collect().equals(frame)
    assert scanned.head(3100).collect().equals(frame.head(3100))
    assert scanned.filter(pl.col("label") == 1).collect().equals(frame.filter(pl.col("label") == 1))


def test_strings_are_the_general_readers() -> None:
    lists = pa.field("keys", pa.list_(pa.uint64()))
    assert parquet_columns.readable(pa.schema([lists, pa.field("label", pa.int8())]))
    assert not parquet_columns.readable(pa.schema([lists, pa.field("city", pa.string())]))
    assert not parquet_columns.readable(pa.schema([pa.field("label", pa.int8())]))
    assert not parquet_columns.readable(pa.schema([pa.field("deep", pa.list_(pa.list_(pa.int64())))]))


def test_a_damaged_page_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame(samples()).write_parquet(path, compression="uncompressed")
    whole = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(0).column(1)
    assert chunk.path_in_schema.startswith("keys")
    refused = 0
    for at in range(chunk.data_page_offset, chunk.data_page_offset + 60):
        torn = bytearray(whole)
        torn[at] ^= 0xFF
        path.write_bytes(torn)
        try:
            read(path, ["keys"])
        except (DataError, pl.exceptions.PolarsError) as error:
            refused += str(path) in str(error)
    assert refused > 10
