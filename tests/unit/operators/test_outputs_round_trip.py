"""Each written file reads back equal within the format's types."""

from __future__ import annotations

import tempfile
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from .io_context import read, write

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12) | st.sampled_from(
    [
        "",
        "1",
        "007",
        "1.5",
        "true",
        "nan",
        "inf",
        "2020-01-01",
        "null",
        " a ",
        'q"q',
        "a,b",
        "a\nb",
        "a\r\nb",
        "\r",
        "é漢😀",
        "-",
    ]
)
scalars: dict[str, tuple[pl.DataType, st.SearchStrategy[object]]] = {
    "i": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "f": (pl.Float64(), st.floats(allow_nan=True, allow_infinity=True)),
    "b": (pl.Boolean(), st.booleans()),
    "s": (pl.String(), texts),
    "d": (pl.Date(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "t": (pl.Datetime("us"), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))),
}
nested: dict[str, tuple[pl.DataType, st.SearchStrategy[object]]] = {
    "li": (pl.List(pl.Int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3)),
    "ls": (pl.List(pl.String()), st.lists(st.none() | texts, max_size=3)),
    "ll": (
        pl.List(pl.List(pl.Float64())),
        st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=2), max_size=2),
    ),
    "o": (
        pl.Struct({"a": pl.Int64(), "b": pl.List(pl.String())}),
        st.fixed_dictionaries({"a": st.none() | st.integers(-9, 9), "b": st.none() | st.lists(texts, max_size=2)}),
    ),
}


@st.composite
def frames(draw: st.DrawFn, kinds: dict[str, tuple[pl.DataType, st.SearchStrategy[object]]]) -> pl.DataFrame:
    names = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, unique=True))
    rows = draw(st.integers(0, 8))
    columns = {}
    for name in names:
        dtype, values = kinds[name]
        columns[name] = pl.Series(
            name, draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), dtype=dtype, strict=False
        )
    return pl.DataFrame(columns)


quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def back(
    type_: str, frame: pl.DataFrame, suffix: str, reading: dict[str, str] | None = None, **attrs: str
) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{suffix}"
        write(type_, path, frame, **attrs)
        return read(type_, path, **(reading or {}))


@quick
@given(frames(scalars | nested))
def test_parquet_keeps_everything(frame: pl.DataFrame) -> None:
    assert_frame_equal(back("parquet", frame, ".parquet"), frame, check_exact=True)


@quick
@given(frames({k: v for k, v in (scalars | nested).items() if k != "t"}))
def test_orc_keeps_everything_but_units(frame: pl.DataFrame) -> None:
    assert_frame_equal(back("orc", frame, ".orc"), frame, check_exact=True)


@quick
@given(
    frames(scalars),
    st.sampled_from([".csv", ".csv.gz", ".csv.zst"]),
    st.sampled_from([",", ";", "\\t", "|", "\\x01", "/"]),
)
def test_csv_keeps_values_when_types_are_said(frame: pl.DataFrame, suffix: str, sep: str) -> None:
    kinds = {"i": "int", "f": "float", "b": "bool", "s": "str", "d": "date", "t": "timestamp"}
    types = " ".join(f"{name}:{kinds[name]}" for name in frame.columns)
    assert_frame_equal(back("csv", frame, suffix, {"types": types, "sep": sep}, sep=sep), frame, check_exact=True)


@quick
@given(frames(scalars))
def test_csv_infers_the_types_that_were_written(frame: pl.DataFrame) -> None:
    found = back("csv", frame, ".csv")
    for name in frame.columns:
        column = frame[name]
        if column.null_count() < column.len() and not (name == "f" and column.drop_nulls().is_nan().all()):
            assert found.schema[name] == frame.schema[name], name
    assert_frame_equal(found.cast(frame.schema), frame, check_exact=True)


@quick
@given(
    frames({k: v for k, v in (scalars | nested).items() if k not in "dt"}),
    st.sampled_from([".jsonl", ".json.gz", ".ndjson.zst"]),
)
def test_json_keeps_all_but_nan_and_infinity(frame: pl.DataFrame, suffix: str) -> None:
    expected = frame.with_columns(pl.col(pl.Float64).replace([float("nan"), float("inf"), float("-inf")], None))
    if frame.height == 0:
        return  # an empty JSON file has no columns: `types` must say them
    found = back("json", frame, suffix)
    assert found.columns == frame.columns
    for name in frame.columns:
        if frame[name].null_count() == frame.height or expected[name].null_count() == frame.height:
            assert found[name].null_count() == frame.height
        elif not isinstance(frame.schema[name], pl.List | pl.Struct):
            assert found[name].to_list() == expected[name].to_list()
        elif frame[name].explode().null_count() == 0 and name == "li":
            assert found[name].to_list() == frame[name].to_list()


@quick
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00"), max_size=20), max_size=8)
)
def test_text_keeps_lines(values: list[str]) -> None:
    frame = pl.DataFrame({"value": values}, schema={"value": pl.String})
    assert_frame_equal(back("text", frame, ".txt"), frame)


pairs = st.dictionaries(
    st.integers(0, 2**62), st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool), max_size=5
)


@quick
@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), pairs, st.none() | st.integers(0, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_libsvm_keeps_sorted_rows(rows: list[tuple[float, dict[int, float], int | None]]) -> None:
    frame = pl.DataFrame(
        {
            "label": [r[0] for r in rows],
            "indices": [sorted(r[1]) for r in rows],
            "values": [[r[1][k] for k in sorted(r[1])] for r in rows],
            "qid": [r[2] for r in rows],
        },
        schema={"label": pl.Float32, "indices": pl.List(pl.Int64), "values": pl.List(pl.Float32), "qid": pl.Int64},
    )
    assert_frame_equal(back("libsvm", frame, ".libsvm", {"base": "0"}), frame, check_exact=True)


@pytest.mark.parametrize("type_", ["parquet", "orc", "csv", "json", "text", "libsvm"])
def test_an_empty_frame_is_written_and_read(type_: str, tmp_path: Path) -> None:
    schema: dict[str, pl.DataType] = {"s": pl.String()}
    if type_ == "libsvm":
        schema = {"label": pl.Float32(), "keys": pl.List(pl.UInt64())}
    write(type_, tmp_path / "out", pl.DataFrame(schema=schema))
    found = read(type_, tmp_path / "out", **({"types": "s:str"} if type_ == "json" else {}))
    assert found.height == 0


@pytest.mark.parametrize("type_", ["parquet", "orc", "csv", "json", "libsvm"])
def test_partitions_become_folders_and_come_back_as_columns(type_: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "city": ["Oslo", "x/y z", None, "Oslo"],
            "n": [1, 2, 1, 1],
            "label": [0.0, 1.0, 0.0, 1.0],
            "keys": [[1], [2, 3], [4], [5]],
        },
        schema_overrides={"label": pl.Float32},
    )
    if type_ == "csv":
        frame = frame.with_columns(keys=pl.Series(["a", "b", "c", "d"]))
    write(type_, tmp_path / "out", frame, partition_by="city n")
    names = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out").rglob("part-*"))
    assert len(names) == 3 and any("city=Oslo/n=1/part-00000" in name for name in names)
    reading = {"base": "0"} if type_ == "libsvm" else {}
    found = read(type_, tmp_path / "out", **reading)
    keys = "indices" if type_ == "libsvm" else "keys"
    assert (
        found.sort("label", keys).select("city", "n", "label", keys).rows()
        == frame.sort("label", "keys").select("city", "n", "label", "keys").rows()
    )
