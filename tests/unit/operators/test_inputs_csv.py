"""CSV as users have it: quotes, nulls, encodings, rows gone wrong."""

from __future__ import annotations

import gzip
import json
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock.errors import DataError
from penstock.operators import CheckContext

from .io_context import Context, read, reader


def csv(tmp_path: Path, text: str | bytes, name: str = "a.csv", **attrs: str) -> pl.DataFrame:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read("csv", path, **attrs)


def test_an_unquoted_empty_field_is_null_and_quotes_make_the_empty_string(tmp_path: Path) -> None:
    assert csv(tmp_path, 'a,b\n,""\n"",\n')["b"].to_list() == ["", None]
    assert csv(tmp_path, 'a,n\nx,"" \n'.replace('"" ', '""'), types="n:int")["n"].to_list() == [None]


def test_inference(tmp_path: Path) -> None:
    text = (
        "i,f,b,d,t,zip,big,q,mix,none\n"
        '1,1,true,2026-01-02,2026-01-02T03:04:05Z,007,9999999999999999999,"1",1,\n'
        "-2,2.5,FALSE,,2026-01-02,1,1,2,x,\n"
    )
    found = csv(tmp_path, text)
    expected = [pl.Int64, pl.Float64, pl.Boolean, pl.Date, pl.Datetime("us")] + [pl.String] * 5
    assert found.dtypes == expected
    assert found.row(0)[:6] == (1, 1.0, True, date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5), "007")


def test_names_ranges_types_globs_and_nulls(tmp_path: Path) -> None:
    found = csv(
        tmp_path,
        "1\t \t68fd1e64\n0\tNA\t\n",
        name="a.tsv",
        sep="\\t",
        header="false",
        names="label I1..I1 C01..C01",
        types="label:int I*:float C*:str",
        null="NA",
    )
    assert found.rows() == [(1, None, "68fd1e64"), (0, None, None)]
    assert found.columns == ["label", "I1", "C01"] and found.dtypes == [pl.Int64, pl.Float64, pl.String]


def test_quoted_newlines_crlf_bom_and_columns(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbfa,b\r\n"x\r\ny",1\r\n\r\nz,"2"\r\n'
    assert csv(tmp_path, text, types="b:int").rows() == [("x\r\ny", 1), ("z", 2)]
    assert csv(tmp_path, text, columns="b", types="b:int").rows() == [(1,), (2,)]


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [("gbk", "名字,城市\n小明,北京\n".encode("gbk")), ("latin-1", "größe,x\nà,1\n".encode("latin-1"))],
)
def test_encodings(tmp_path: Path, encoding: str, raw: bytes) -> None:
    found = csv(tmp_path, raw, encoding=encoding)
    assert found.to_dicts() == pl.read_csv(raw.decode(encoding).encode()).to_dicts()


BAD = "id,price\n1,1.5\n2,abc\n3\n4,1,2\n5,9\n"


def test_fail_names_file_line_column_value_and_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        csv(tmp_path, BAD, types="price:float")
    assert error.value.code == "DATA007"
    assert error.value.message == f"{tmp_path}/a.csv:3: column 'price': 'abc' is not of type float"
    assert "price:str" in error.value.hint


@pytest.mark.parametrize(
    ("on_error", "rows"),
    [("drop", [(1, 1.5), (5, 9.0)]), ("keep", [(1, 1.5), (2, None), (3, None), (4, 1.0), (5, 9.0)])],
)
@pytest.mark.parametrize("where", ["bad.jsonl", "bad.csv"])
def test_rejects(tmp_path: Path, on_error: str, rows: list[tuple[int, float]], where: str) -> None:
    assert csv(tmp_path, BAD, types="price:float", on_error=on_error, errors=str(tmp_path / where)).rows() == rows
    text = (tmp_path / where).read_text()
    if where.endswith(".csv"):
        rejected = pl.read_csv(tmp_path / where).rows()
    else:
        rejected = [tuple(json.loads(line).values()) for line in text.splitlines()]
    assert [(r[1], r[2] or "", r[4]) for r in rejected] == [(3, "price", "2,abc"), (4, "", "3"), (5, "", "4,1,2")]
    assert rejected[1][3] == "1 field(s) where 2 are expected"


def test_what_is_rejected_does_not_depend_on_the_columns_read(tmp_path: Path) -> None:
    context = Context()
    (tmp_path / "a.csv").write_text(BAD)
    frame = reader("csv", tmp_path / "a.csv", types="price:float", on_error="drop").read(context)
    assert isinstance(frame, pl.LazyFrame)
    assert frame.select("id").collect().to_series().to_list() == [1, 5]
    assert frame.filter(pl.col("id") > 1).select(pl.len()).collect().item() == 1
    assert frame.head(1).collect().rows() == [(1, 1.5)]
    assert any("3 bad row(s) dropped" in told for told in context.told)


def test_bytes_that_are_no_text_are_rejects(tmp_path: Path) -> None:
    raw = b"a,b\nok,1\n\xc4\xe3,2\n"
    with pytest.raises(DataError, match="not valid in the file's encoding") as error:
        csv(tmp_path, raw)
    assert "gbk" in error.value.hint
    assert csv(tmp_path, raw, on_error="keep").rows() == [("ok", 1), (None, 2)]


def test_a_stray_quote_costs_one_row(tmp_path: Path) -> None:
    assert csv(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n', on_error="drop").rows() == [(1, "x"), (3, "z")]
    with pytest.raises(DataError, match=r"a\.csv:3: a quote is opened and never closed"):
        csv(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n')


def test_files_of_one_folder_may_order_columns_differently(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "in" / "2.csv").write_text("b,a\ny,2\n")
    (tmp_path / "in" / "3.csv").write_text("a\n3\n")
    assert read("csv", tmp_path / "in").rows() == [(1, "x"), (2, "y"), (3, None)]
    (tmp_path / "in" / "4.csv").write_text("a,c\n4,z\n")
    with pytest.raises(DataError, match=r"4\.csv:1: its header has a column 'c'"):
        read("csv", tmp_path / "in")


def test_a_type_that_changes_between_files_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a\n1\n")
    (tmp_path / "2.csv").write_text("a\nx\n")
    with pytest.raises(DataError, match=r"2\.csv:2: column 'a': 'x' is not of type int"):
        read("csv", tmp_path / "*.csv")


@pytest.mark.parametrize(
    ("name", "raw", "code", "said"),
    [
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)[:-20], "DATA016", "ends in the middle"),
        ("a.csv.gz", b"a,b\n" + b"1,2\n" * 50, "DATA016", "cannot be read"),
        ("a.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "DATA016", "compressed by gzip"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "DATA016", "UTF-16"),
        ("a.csv", b"PAR1....", "DATA016", "Parquet"),
        ("a.csv", b"", "DATA009", "is empty"),
        ("a.csv", b"a,a\n1,2\n", "DATA009", "column 'a' twice"),
        ("a.csv", b"a\0,b\n1,2\n", "DATA009", "NUL"),
    ],
)
def test_files_that_are_not_what_they_seem(tmp_path: Path, name: str, raw: bytes, code: str, said: str) -> None:
    (tmp_path / name).write_bytes(raw)
    checked = reader("csv", tmp_path / name).check(CheckContext())
    assert [f.code for f in checked.faults] == [code] and said in checked.faults[0].message, checked.faults


def test_a_slip_in_types_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("price\n1\n")
    [fault] = reader("csv", tmp_path / "a.csv", types="prize:float").check(CheckContext()).faults
    assert (fault.code, fault.hint) == ("DATA017", "did you mean 'price'?")
    for attrs in ({"types": "price:double"}, {"names": "I3..I1"}, {"names": "a a"}, {"sep": ";;"}, {"sep": '"'}):
        with pytest.raises(ValidationError):
            reader("csv", tmp_path / "a.csv", **attrs)


def test_many_chunks_and_threads_give_the_same_rows_in_order(tmp_path: Path) -> None:
    rows = [(i, f'na"me\n{i}' if i % 7 == 0 else f"x{i}") for i in range(120_000)]
    pl.DataFrame(rows, schema=["i", "s"], orient="row").write_csv(tmp_path / "a.csv")
    for threads in (1, 2, 5):
        frame = reader("csv", tmp_path / "a.csv").read(Context(threads=threads))
        assert isinstance(frame, pl.LazyFrame)
        assert frame.collect(engine="streaming").rows() == rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300) | st.text('ab",\n\r\\1.é', max_size=200).map(str.encode), st.sampled_from(["drop", "keep"])
)
def test_no_bytes_make_the_readers_panic(tmp_path: Path, raw: bytes, on_error: str) -> None:
    for type_ in ("csv", "json", "text", "libsvm"):
        for suffix in ("", ".gz"):
            path = tmp_path / f"fuzz{suffix}"
            path.write_bytes(raw)
            try:
                made = reader(type_, path, on_error=on_error)
                frame = made.read(Context(threads=1))
                assert isinstance(frame, pl.LazyFrame)
                frame.collect()
            except DataError as error:
                assert error.code in {"DATA007", "DATA009", "DATA016"}
