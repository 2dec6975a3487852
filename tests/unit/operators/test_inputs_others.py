"""Parquet, ORC, JSON lines, text and libsvm inputs: what they promise, and what they say of broken files."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path

import fsspec
import polars as pl
import pytest

from penstock.data.schema import Schema
from penstock.errors import DataError
from penstock.operators import CheckContext

from .io_context import Context, read, reader, write


def test_roles_come_back_from_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"y": [1], "user": [[5]]})
    write("parquet", tmp_path / "out", frame, {"y": "label", "user": "slot"})
    info = reader("parquet", tmp_path / "out").check(CheckContext()).outputs[""]
    assert isinstance(info, Schema)
    assert [(c.name, c.role) for c in info] == [("y", "label"), ("user", "slot")]


@pytest.mark.parametrize("type_", ["parquet", "orc"])
def test_a_type_that_changes_between_files_names_both(type_: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(type_, tmp_path / "in" / f"1.{type_}", pl.DataFrame({"a": [1], "b": ["x"]}))
    write(type_, tmp_path / "in" / f"2.{type_}", pl.DataFrame({"b": ["y"], "c": [2]}))
    assert read(type_, tmp_path / "in").rows() == [(1, "x", None), (None, "y", 2)]
    write(type_, tmp_path / "in" / f"3.{type_}", pl.DataFrame({"a": ["q"]}))
    [fault] = reader(type_, tmp_path / "in").check(CheckContext()).faults
    assert fault.code == "DATA005"
    assert fault.message == f"column 'a' is int64 in {tmp_path}/in/1.{type_} but string in {tmp_path}/in/3.{type_}"


@pytest.mark.parametrize("type_", ["parquet", "orc"])
@pytest.mark.parametrize(("damage", "said"), [("text", "it holds text"), ("cut", "footer"), ("empty", "it is empty")])
def test_a_file_that_is_none(type_: str, damage: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{type_}"
    write(type_, path, pl.DataFrame({"a": range(1000)}))
    path.write_bytes({"text": b"a,b\n1,2\n", "cut": path.read_bytes()[:-30], "empty": b""}[damage])
    [fault] = reader(type_, path).check(CheckContext()).faults
    assert fault.code == "DATA004" and said in fault.message
    with pytest.raises(DataError, match="is not a whole"):
        reader(type_, path).read(Context())


def test_columns_are_kept_in_the_order_asked_and_slips_are_told(tmp_path: Path) -> None:
    write("parquet", tmp_path / "a.parquet", pl.DataFrame({"a": [1], "b": [2], "c": [3]}))
    assert read("parquet", tmp_path / "a.parquet", columns="c, a").columns == ["c", "a"]
    [fault] = reader("parquet", tmp_path / "a.parquet", columns="a bb").check(CheckContext()).faults
    assert (fault.code, fault.hint) == ("DATA006", "did you mean 'b'?")


def test_a_path_that_an_earlier_node_writes_is_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "later"
    promised = CheckContext(promised=frozenset({str(path)}))
    assert reader("parquet", path).check(promised).faults == ()
    assert reader("csv", path / "part-0.csv").check(promised).faults == ()
    assert [f.code for f in reader("parquet", path).check(CheckContext()).faults] == ["DATA001"]
    several = reader("parquet", f"{path}, {tmp_path / 'no'}").check(promised)
    assert [f.code for f in several.faults] == ["DATA001"] and "/no does not exist" in several.faults[0].message


def test_an_empty_part_says_nothing_of_the_columns(tmp_path: Path) -> None:
    for type_, text in (("csv", "a,b\n1,2\n"), ("json", '{"a":1,"b":2}\n')):
        (tmp_path / type_).mkdir()
        (tmp_path / type_ / "part-0").touch()
        (tmp_path / type_ / "part-1").write_text(text)
        assert read(type_, tmp_path / type_).rows() == [(1, 2)]


@pytest.mark.parametrize("type_", ["parquet", "orc", "csv", "json", "text"])
def test_files_are_read_through_any_filesystem(type_: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"value": ["x", "y"]})
    url = f"memory:///{tmp_path.name}-{type_}/out"
    write(type_, url, frame)
    assert read(type_, url).rows() == [("x",), ("y",)]
    assert fsspec.filesystem("memory").exists(f"/{tmp_path.name}-{type_}/out/_penstock.json")


def test_remote_partitions(tmp_path: Path) -> None:
    url = f"memory:///{tmp_path.name}/out"
    write("parquet", url, pl.DataFrame({"a": [1, 2], "dt": ["2026-01-01", "2026-01-02"]}), partition_by="dt")
    found = read("parquet", url)
    assert found.schema == {"a": pl.Int64, "dt": pl.Date} and found.height == 2


# --- JSON ---


def json(tmp_path: Path, text: str, **attrs: str) -> pl.DataFrame:
    (tmp_path / "a.jsonl").write_text(text)
    return read("json", tmp_path / "a.jsonl", **attrs)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_json_without_rows_keeps_the_columns_that_are_named_and_says_so(tmp_path: Path, text: str) -> None:
    found = json(tmp_path, text, columns="b a", types="a:int")
    assert found.height == 0 and found.schema == {"b": pl.String, "a": pl.Int64}
    [warning] = reader("json", tmp_path / "a.jsonl", columns="b a", types="a:int").check(CheckContext()).faults
    assert (warning.code, warning.severity) == ("DATA009", "warning") and "holds no rows" in warning.message
    [fault] = reader("json", tmp_path / "a.jsonl").check(CheckContext()).faults
    assert (fault.code, fault.severity) == ("DATA009", "error") and 'columns="a"' in fault.hint


def test_json_without_rows_in_folders_keeps_what_the_folders_say(tmp_path: Path) -> None:
    (tmp_path / "dt=2026-01-01").mkdir()
    (tmp_path / "dt=2026-01-01" / "a.jsonl").touch()
    found = read("json", tmp_path, columns="a dt")
    assert found.height == 0 and found.schema == {"a": pl.String, "dt": pl.Date}


def test_json_with_rows_does_not_make_up_a_column_that_columns_names(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a":1}\n')
    [fault] = reader("json", tmp_path / "a.jsonl", columns="a b").check(CheckContext()).faults
    assert fault.code == "DATA006" and fault.severity == "error"


def test_json_types_missing_keys_and_nesting(tmp_path: Path) -> None:
    found = json(tmp_path, '{"i":1,"f":1,"l":[1,null],"o":{"a":"x"}}\n\n{"f":2.5,"o":{"a":null,"b":[true]},"i":null}\n')
    assert found.schema == {
        "i": pl.Int64,
        "f": pl.Float64,
        "l": pl.List(pl.Int64),
        "o": pl.Struct({"a": pl.String, "b": pl.List(pl.Boolean)}),
    }
    assert found.to_dicts() == [
        {"i": 1, "f": 1.0, "l": [1, None], "o": {"a": "x", "b": None}},
        {"i": None, "f": 2.5, "l": None, "o": {"a": None, "b": [True]}},
    ]


def test_json_types_are_said_and_widen_nothing_silently(tmp_path: Path) -> None:
    found = json(tmp_path, '{"ts":"2026-01-02T00:00:00Z","id":7}\n', types="ts:timestamp id:str more:float")
    assert found.rows() == [(datetime(2026, 1, 2), "7", None)]


def test_a_json_conflict_is_a_reject_that_names_its_key(tmp_path: Path) -> None:
    text = '{"o":{"a":1}}\n{"o":{"a":"x"}}\nnot json\n[1]\n{"o":{"a":3}}\n'
    with pytest.raises(DataError, match=r"a\.jsonl:2: column 'o\.a': \"x\" is not of type int"):
        json(tmp_path, text)
    assert json(tmp_path, text, on_error="drop").height == 2
    assert json(tmp_path, text, on_error="keep").rows() == [({"a": 1},), (None,), ({"a": 3},)]


def test_json_numbers_keep_every_bit(tmp_path: Path) -> None:
    found = json(
        tmp_path,
        '{"i":9223372036854775807,"u":18446744073709551615,"f":0.1}\n{"i":-9223372036854775808,"u":1,"f":1e-320}\n',
    )
    assert found.rows() == [(2**63 - 1, 2**64 - 1, 0.1), (-(2**63), 1, 1e-320)]


def test_deep_json_is_a_reject(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        json(tmp_path, '{"a":1}\n{"a":' + "[" * 100_000 + "\n")


# --- text, libsvm ---


def test_text(tmp_path: Path) -> None:
    (tmp_path / "a.log.gz").write_bytes(gzip.compress("a\n\né\r\nlast".encode()))
    assert read("text", tmp_path / "a.log.gz")["value"].to_list() == ["a", "", "é", "last"]


def test_libsvm(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("+1 3:0.5 1:2 3:1e-3 # comment 9:9\n\n-1 qid:7 4000000000:1\n0\n")
    found = read("libsvm", tmp_path / "a")
    assert found.schema == {
        "label": pl.Float32,
        "indices": pl.List(pl.Int64),
        "values": pl.List(pl.Float32),
        "qid": pl.Int64,
    }
    assert found["label"].to_list() == [1, -1, 0] and found["qid"].to_list() == [None, 7, None]
    assert found["indices"].to_list() == [[2, 0, 2], [3_999_999_999], []]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 0:1", "below the base"),
        ("x 1:1", "'x' is no number"),
        ("1 1:", "not index:value"),
        ("1 a:1", "not index:value"),
        ("1 1 2", "not index:value"),
        ("1 qid:x 1:1", "no qid"),
    ],
)
def test_libsvm_rows_gone_wrong(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a").write_text(f"1 1:1\n{line}\n")
    with pytest.raises(DataError, match=said) as error:
        read("libsvm", tmp_path / "a")
    assert f"{tmp_path}/a:2:" in error.value.message
    assert read("libsvm", tmp_path / "a", on_error="drop").height == 1
    assert read("libsvm", tmp_path / "a", on_error="keep").height == 2


@pytest.mark.realdata
def test_a9a_has_its_known_shape(realdata: Path) -> None:
    found = read("libsvm", realdata / "libsvm" / "a9a_123d_train.libsvm.gz")
    assert found.height == 32_561
    assert found["indices"].explode(empty_as_null=False).max() == 122
    assert found["label"].unique().sort().to_list() == [-1, 1]
