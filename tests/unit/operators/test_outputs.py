"""What outputs refuse, warn of, and write."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from pydantic import ValidationError

from penstock.data.schema import Column, Schema
from penstock.errors import DataError
from penstock.operators import CheckContext, Fault, Output, operator

from .io_context import Context, read, schema_of, write


def output(type_: str, **attrs: str) -> Output:
    made = operator("output", type_).model_validate({"from": "x", **attrs})
    assert isinstance(made, Output)
    return made


def faults(type_: str, schema: Schema, **attrs: str) -> list[Fault]:
    return list(output(type_, **attrs).check({"x": schema}, CheckContext()).faults)


LISTS = Schema((Column("a", pa.int64()), Column("tags", pa.list_(pa.string()))))


@pytest.mark.parametrize(("type_", "refused"), [("csv", ["tags"]), ("json", []), ("parquet", []), ("orc", [])])
def test_what_a_format_cannot_hold_is_a_fault(type_: str, refused: list[str]) -> None:
    found = faults(type_, LISTS, path="out/x")
    assert [f.code for f in found] == ["DATA019"] * len(refused)
    assert all(name in f.message for name, f in zip(refused, found, strict=True))


def test_lost_roles_are_a_warning_and_kept_ones_none() -> None:
    schema = Schema((Column("age", pa.float32(), "dense"),))
    assert [(f.code, f.severity) for f in faults("csv", schema, path="o")] == [("DATA020", "warning")]
    assert faults("parquet", schema, path="o") == []


def test_one_file_or_a_folder_goes_by_the_suffix() -> None:
    assert not output("csv", path="a/b.csv.gz").folder() and output("csv", path="a/b").folder()
    assert not output("json", path="m.json").folder() and not output("parquet").folder()
    assert output("parquet", partition_by="dt").folder()
    assert [f.code for f in faults("csv", LISTS, path="a.csv", mode="append")][:1] == ["DATA013"]
    assert [f.code for f in faults("parquet", LISTS, path="a.parquet", partition_by="a")] == ["DATA013"]
    assert [f.code for f in faults("parquet", LISTS, path="a", partition_by="b")] == ["DATA006"]
    assert [f.code for f in faults("json", LISTS, path="a.json", compression="gzip")] == ["DATA013"]


def test_the_twin_reads_what_was_written(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": ["1", None], "b": [1.5, 2.0]})
    write("csv", tmp_path / "x.tsv", frame, sep="\\t", header="false")
    twin = dict(output("csv", path="x.tsv", sep="\\t", header="false").twin())
    assert read(twin.pop("type"), tmp_path / "x.tsv", **twin).rows() == frame.rows()


def test_csv_is_plain_to_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"city": ["Oslo", "", None, "12"], "n": [1, 2, None, 4], "a b": [True, None, False, True]})
    write("csv", tmp_path / "x.csv", frame)
    assert (tmp_path / "x.csv").read_text() == 'city,n,"a b"\nOslo,1,true\n"",2,\n,,false\n"12",4,true\n'


def test_a_separator_that_numbers_use_is_refused() -> None:
    with pytest.raises(ValidationError):
        output("csv", path="a.csv", sep="-")


def test_text_refuses_line_breaks_and_more_than_one_column(tmp_path: Path) -> None:
    assert [f.code for f in faults("text", LISTS, path="a.txt")][-1] == "DATA019"
    with pytest.raises(DataError, match="line break"):
        write("text", tmp_path / "a.txt", pl.DataFrame({"v": ["a\nb"]}))
    assert not (tmp_path / "a.txt").exists()


def test_libsvm_joins_slots_sorts_and_sums(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"label": [1, 0], "u": [[7], []], "t": [[9, 3, 9], None], "t__weight": [[0.5, 2.0, 0.25], None]},
        schema_overrides={"u": pl.List(pl.UInt64), "t": pl.List(pl.UInt64), "t__weight": pl.List(pl.Float32)},
    )
    write("libsvm", tmp_path / "a.libsvm", frame, {"u": "slot", "t": "slot"})
    assert (tmp_path / "a.libsvm").read_text() == "1 3:2 7:1 9:0.75\n0\n"


def test_libsvm_keys_are_63_bits_and_a_null_label_is_an_error(tmp_path: Path) -> None:
    frame = pl.DataFrame({"label": [1.5], "keys": [[2**63 - 1]]}, schema_overrides={"keys": pl.List(pl.UInt64)})
    write("libsvm", tmp_path / "a.libsvm", frame)
    assert read("libsvm", tmp_path / "a.libsvm", base="0")["indices"].to_list() == [[2**63 - 1]]
    with pytest.raises(DataError, match="no label"):
        write("libsvm", tmp_path / "a.libsvm", frame.with_columns(label=pl.lit(None, dtype=pl.Float64)))
    assert [f.code for f in faults("libsvm", LISTS, path="o")] == ["DATA022"]


def test_libsvm_says_what_it_leaves_out() -> None:
    schema = Schema(
        (Column("label", pa.int64()), Column("keys", pa.list_(pa.int64())), Column("age", pa.float32(), "dense"))
    )
    [fault] = faults("libsvm", schema, path="o")
    assert fault.severity == "warning" and "age" in fault.message


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "none"])
def test_parquet_compressions(tmp_path: Path, compression: str) -> None:
    frame = pl.DataFrame({"a": range(100)})
    write("parquet", tmp_path / "a.parquet", frame, compression=compression)
    assert read("parquet", tmp_path / "a.parquet").equals(frame)
    write("orc", tmp_path / "a.orc", frame, compression=compression)
    assert read("orc", tmp_path / "a.orc").equals(frame)


def test_print_shows_the_first_rows_only(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context(schema=schema_of(pl.DataFrame({"a": [1]})))
    sink = output("print", rows="2").sink(pl.LazyFrame({"a": [1, 2, 3], "b": [[1.5], None, []]}), Path(), context)
    assert sink is None
    assert context.shown[0]["rows"] == [[1, "[1.5]"], [2, None]]
    assert "first 2 row(s)" in capsys.readouterr().out
