"""The kernel through its Python door: what goes in zero-copy, what comes out, and how faults are told."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from penstock import native


def plan(*items: dict[str, Any], seed: int = 0, **attached: Any) -> native.Plan:
    document = {"penstock": "plan/1", "name": "t", "seed": str(seed), "items": list(items), **attached.pop("more", {})}
    return native.Plan(json.dumps(document), **attached)


def slot(name: str, fn: str, *columns: str, **more: Any) -> dict[str, Any]:
    found = {"as": "slot", "name": name, "id": 1, "fn": fn, "from": [{"column": c} for c in columns], "params": {}}
    return {**found, **more}


CITY = slot("city", "hash", "city")
TEXTS = ["Paris", "", None, "Zürich 東京"]


@pytest.mark.parametrize(
    "type",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.uint32(), pa.large_string()),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
    ],
    ids=str,
)
def test_strings_of_every_arrow_type_have_the_same_keys(type: pa.DataType) -> None:
    values = pa.array(TEXTS, pa.string())
    values = values.dictionary_encode().cast(type) if pa.types.is_dictionary(type) else values.cast(type)
    mapped = plan(CITY).apply(pa.record_batch({"city": values}))
    expected = plan(CITY).apply(pa.record_batch({"city": pa.array(TEXTS)}))
    assert mapped.column("city").to_pylist() == expected.column("city").to_pylist()
    assert mapped.column("city").to_pylist()[2] == []


@pytest.mark.parametrize(
    ("values", "same_as"),
    [
        (pa.array([-5, 2**62], pa.int64()), ["-5", str(2**62)]),
        (pa.array([7, 2**64 - 1], pa.uint64()), ["7", str(2**64 - 1)]),
        (pa.array([-5, 7], pa.int8()), ["-5", "7"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([dt.date(2026, 1, 2), dt.date(1, 1, 1)]), ["2026-01-02", "0001-01-01"]),
        (pa.array([dt.date(2026, 1, 2), dt.date(1969, 12, 31)], pa.date64()), ["2026-01-02", "1969-12-31"]),
        (pa.array([0, -1], pa.timestamp("ns")), ["0", "-1"]),
        (pa.array([1, -1], pa.timestamp("s", "Asia/Tokyo")), ["1000000", "-1000000"]),
        (pa.array([1, -1], pa.timestamp("ms")), ["1000", "-1000"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_canonical_bytes(values: pa.Array, same_as: list[str]) -> None:
    hashed = native.hash_column(values, 9)
    assert hashed.equals(native.hash_column(pa.array(same_as), 9))


def test_hash_column_keeps_nulls_and_refuses_what_has_no_canonical_bytes() -> None:
    assert native.hash_column(pa.array(["a", None])).is_null().to_pylist() == [False, True]
    assert native.hash_column(pa.array([], pa.string())).to_pylist() == []
    # The published XXH3-64 of no bytes, seed 0.
    assert native.hash_column(pa.array([""])).to_pylist() == [0x2D06800538D394C2]
    for refused in (pa.array([1.0]), pa.array([[1]]), pa.array([{"a": 1}]), pa.array([dt.time(1)])):
        with pytest.raises(ValueError):
            native.hash_column(refused)


def test_polars_frames_go_in_and_out_without_a_copy_of_their_strings() -> None:
    frame = pl.DataFrame({"city": TEXTS, "tags": [["a", None], [], None, ["b"]]})
    batch = frame.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches()[0]
    mapped = plan(slot("tag", "hash", "tags")).apply(batch, ["city"])
    found = pl.from_arrow(mapped)
    assert isinstance(found, pl.DataFrame)
    assert found.schema == {"city": pl.String, "tag": pl.List(pl.UInt64)}
    assert found["tag"].list.len().to_list() == [1, 0, 0, 1]
    kept, given = mapped.column("city").buffers(), batch.column("city").buffers()
    assert [b and b.address for b in kept[1:]] == [b and b.address for b in given[1:]]


def test_sliced_batches_are_read_where_they_start() -> None:
    batch = pa.record_batch({"city": TEXTS * 3, "n": list(range(12))})
    whole = plan(CITY, slot("n", "identity", "n", id=2)).apply(batch)
    part = plan(CITY, slot("n", "identity", "n", id=2)).apply(batch.slice(5, 6))
    assert part.to_pylist() == whole.to_pylist()[5:11]


def test_a_row_of_python_values_is_a_row_of_arrow() -> None:
    row = {
        "city": "Paris",
        "n": 3,
        "at": dt.datetime(2026, 11, 21, 23, 30, tzinfo=dt.UTC),
        "day": dt.date(2026, 11, 21),
        "tags": ["a", None, "b"],
        "ok": True,
        "raw": b"\xff\x00",
    }
    items = [slot(name, "hash", name, id=i) for i, name in enumerate(row, 1)]
    items.append(
        slot("hour", "bucketize_time", "at", id=20, params={"part": "hour_of_week", "tz": "Asia/Kolkata", "unit": "s"})
    )
    compiled = plan(*items)
    batch = pa.RecordBatch.from_pylist([row])
    mapped = compiled.apply(batch).to_pylist()[0]
    keys, weights, dense = compiled.apply_row(row)
    assert dict(zip(mapped, keys, strict=True)) == mapped
    assert weights == [None] * len(mapped) and dense == []
    assert mapped["hour"] == [20 << 52 | (6 * 24 + 5)], "half past eleven on Saturday is five on Sunday in Kolkata"
    naive = {**row, "at": row["at"].replace(tzinfo=None)}  # type: ignore[attr-defined]
    assert compiled.apply_row(naive) == compiled.apply_row(row)
    assert compiled.apply_row({})[0] == [[]] * len(mapped), "a column left out is null"


def test_a_bad_row_is_an_error_with_its_place_or_is_left_out() -> None:
    compiled = plan(slot("n", "identity", "n"))
    batch = pa.record_batch({"n": [1, -4, None, 2**52 - 1]})
    with pytest.raises(native.RowError, match="row 1: 'n' is -4") as raised:
        compiled.apply(batch)
    assert (raised.value.row, raised.value.item) == (1, "n")
    kept, rejected = compiled.apply(batch, ["n"], on_error="drop")
    assert kept.to_pylist() == [{"n": 1, **kept.slice(0, 1).to_pylist()[0]}, kept.slice(1, 1).to_pylist()[0]]
    assert [(row, item) for row, item, _ in rejected] == [(1, "n"), (3, "n")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (slot("s", "hash", "c", id=0), "slot id 0"),
        (slot("s", "hash", "c", id=2048), "slot id 2048"),
        (slot("s", "nonsense", "c"), "'nonsense' is not a function"),
        (slot("s", "hash", "c", rev=2), "revision 2"),
        (slot("s", "hash", "a", "b"), "takes one input, not 2"),
        (slot("s", "piecewise", "c", params={"bounds": [3, 1]}), "3 comes before 1"),
        (slot("s", "log", "c"), "may not stand as a slot"),
        (slot("s", "bucketize_time", "c", params={"part": "hour", "tz": "Mars/Olympus"}), "Mars/Olympus"),
        (slot("s", "pickcat", "c", params={"dict": "d"}), "dictionary 'd' is not in the plan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_plan_is_refused_by_name(item: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(item)


def test_types_that_do_not_fit_are_named_even_without_rows() -> None:
    empty = pa.record_batch({"c": pa.array([], pa.float64())})
    with pytest.raises(ValueError, match=r"'s': 'c': floats cannot be hashed"):
        plan(slot("s", "hash", "c")).apply(empty)
    with pytest.raises(ValueError, match="column 'c' is not in the batch"):
        plan(slot("s", "hash", "c")).apply(pa.record_batch({"d": [1]}))


def test_a_second_process_opens_a_dictionary_at_once(tmp_path: Path) -> None:
    native.Dictionary.build([f"value {i}" for i in range(200_000)], tmp_path / "d")
    script = (
        "import sys, time; from penstock import native; start = time.process_time(); "
        "found = native.Dictionary.open(sys.argv[1]); assert found.get('value 199999') == 200_000; "
        "print(time.process_time() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "d")], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 0.05


def test_dictionary_faults_say_where(tmp_path: Path) -> None:
    source = tmp_path / "cities.txt"
    source.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r'cities\.txt:3: "a" is already on line 1'):
        native.Dictionary.compile(source, tmp_path / "d")
    with pytest.raises(FileNotFoundError):
        native.Dictionary.compile(tmp_path / "none.txt", tmp_path / "d")
    with pytest.raises(ValueError, match="not a compiled dictionary"):
        native.Dictionary.open(source)
    with pytest.raises(ValueError, match="is already value 1"):
        native.Dictionary.build(["x", "x"], tmp_path / "d")
    assert list(tmp_path.iterdir()) == [source]


def test_a_plan_refuses_another_dictionary(tmp_path: Path) -> None:
    native.Dictionary.build(["a", "b"], tmp_path / "ab")
    native.Dictionary.build(["b", "a"], tmp_path / "ba")
    made_with, other = native.Dictionary.open(tmp_path / "ab"), native.Dictionary.open(tmp_path / "ba")
    more = {"dicts": {"d": {"sha256": made_with.sha256, "entries": 2}}}
    item = slot("c", "pickcat", "c", params={"dict": "d", "unknown": "skip"})
    compiled = plan(item, more=more, dictionaries={"d": made_with})
    assert compiled.apply(pa.record_batch({"c": ["b", "?"]})).to_pylist() == [{"c": [1 << 52 | 2]}, {"c": []}]
    with pytest.raises(ValueError, match="its content is not what the plan was made with"):
        plan(item, more=more, dictionaries={"d": other})


def test_explain_says_what_each_key_stands_for() -> None:
    price = slot("price_b", "piecewise", "price", id=3, params={"bounds": [0, 10, 50]})
    cross = slot("cross", "combine", id=4, **{"from": [{"column": "city"}, {"item": 0}]})
    row = {"city": "Paris", "price": 12.5}
    compiled = plan(price, cross, slot("none", "hash", "missing", id=5, null_key=True))
    found = compiled.explain_row(row)
    assert [(item, text) for item, _, text, _ in found] == [
        ("price_b", "12.5 in [10, 50)"),
        ("cross", "city=Paris × price_b=12.5 in [10, 50)"),
        ("none", "null"),
    ]
    assert [[key] for _, key, _, _ in found] == compiled.apply_row(row)[0]
