"""Random feature files over a fixed set of columns, and random rows with everything that rows can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa
from hypothesis import strategies as st

CITIES = ["Roma", "", "Zürich", "京都", "a b", "7", "true", "-3", "18446744073709551615", "1970-01-01"]

SCHEMA = pa.schema(
    [
        ("s", pa.string()),
        ("c", pa.dictionary(pa.int32(), pa.string())),
        ("bin", pa.binary()),
        ("i", pa.int64()),
        ("u", pa.uint64()),
        ("i8", pa.int8()),
        ("index", pa.uint32()),
        ("f", pa.float64()),
        ("f32", pa.float32()),
        ("b", pa.bool_()),
        ("d", pa.date32()),
        ("t", pa.timestamp("us")),
        ("epoch", pa.int64()),
        ("ls", pa.list_(pa.string())),
        ("li", pa.large_list(pa.int64())),
        ("lf", pa.list_(pa.float64())),
        ("w", pa.float64()),
        ("lw", pa.list_(pa.float32())),
    ]
)

_TEXT = st.one_of(st.sampled_from([*CITIES, "x|y", "||", "a|b|a"]), st.text(max_size=12))
_FLOAT = st.one_of(st.sampled_from([0.0, -0.0, 0.5, 10.0, 50.0, 1e300, -1e300, 5e-324]), st.floats())
_I64 = st.one_of(st.integers(-3, 60), st.integers(-(2**63), 2**63 - 1))
_INDEX = st.one_of(st.integers(0, 60), st.integers(0, 2**32 - 1))
_DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
#: Far enough from the ends of the calendar for any zone; within the span that every zone database agrees on.
_TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2024, 12, 31))
_F32 = st.floats(width=32)


def _lists(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(st.none() | elements, max_size=6)
    # A long list crosses the kernel's thresholds between pairwise and hashed comparison.
    long = st.lists(elements, min_size=1, max_size=4).map(lambda few: few * 40)
    return st.one_of(some, some, long)


def _with_weights(values: Any) -> st.SearchStrategy[tuple[Any, Any]]:
    if values is None:
        return st.tuples(st.none(), st.none())
    weights = st.lists(st.none() | _F32, min_size=len(values), max_size=len(values))
    return st.tuples(st.just(values), weights)


_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "s": _TEXT,
    "c": _TEXT,
    "bin": st.binary(max_size=20),
    "i": _I64,
    "u": st.integers(0, 2**64 - 1),
    "i8": st.integers(-128, 127),
    "index": _INDEX,
    "f": _FLOAT,
    "f32": _F32,
    "b": st.booleans(),
    "d": _DATES,
    "t": _TIMES,
    "epoch": st.integers(31_536_000, 1_700_000_000),
    "li": _lists(_I64),
    "lf": _lists(_FLOAT),
    "w": _FLOAT,
}


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """One row; any value may be null."""
    row = {name: draw(st.none() | values) for name, values in _VALUES.items()}
    row["ls"], row["lw"] = draw((st.none() | _lists(_TEXT)).flatmap(_with_weights))
    return row


def batch(of: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    arrays = []
    for column in SCHEMA:
        values = [row[column.name] for row in of]
        plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        array = pa.array(values, plain)
        arrays.append(array.dictionary_encode() if pa.types.is_dictionary(column.type) else array)
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


# --- feature files ------------------------------------------------------------------------------------------

SCALARS = ["s", "c", "bin", "i", "u", "i8", "index", "b", "d", "t"]
LISTS = ["ls", "li"]
NUMBERS = ["i", "u", "i8", "index", "f", "f32", "b", "w"]
ZONES = ["UTC", "Europe/Rome", "America/New_York", "Asia/Kolkata"]


@dataclass
class _Draft:
    """What later items may build on."""

    lines: list[str] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    list_slots: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=lambda: list(NUMBERS))
    hashable: list[str] = field(default_factory=lambda: list(SCALARS))
    lists: list[str] = field(default_factory=lambda: list(LISTS))


def _bounds(draw: st.DrawFn) -> str:
    few = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)
    return ", ".join(map(repr, sorted({b + 0.0 for b in draw(few)})))


@st.composite
def formulas(draw: st.DrawFn, names: Sequence[str]) -> str:
    """Arithmetic that IEEE defines to the last bit, so that the reference needs no tolerance."""
    leaf = st.one_of(st.sampled_from(list(names)), st.floats(0, 1e6).map(repr), st.integers(0, 9).map(str))
    deeper = lambda inner: st.one_of(  # noqa: E731
        st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["abs", "sqrt", "floor", "ceil", "round", "-"]), inner).map(
            lambda t: f"{t[0]}({t[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
    )
    return draw(st.recursive(leaf, deeper, max_leaves=6))


@st.composite
def files(draw: st.DrawFn) -> str:
    """The text of a feature file without faults."""
    draft = _Draft()
    for number in range(1, draw(st.integers(1, 9)) + 1):
        kind = draw(st.sampled_from(["define", "slot", "slot", "dense"]))
        {"define": _define, "slot": _slot, "dense": _dense}[kind](draw, draft, number)
    seed = draw(st.one_of(st.just(0), st.integers(0, 2**64 - 1)))
    body = "\n".join(draft.lines)
    return (
        f'<features xmlns="urn:penstock:features:1" name="random" seed="{seed}">\n'
        f'<dict name="cities" path="cities.txt"/>\n{body}\n</features>\n'
    )


def _element(kind: str, attrs: dict[str, Any]) -> str:
    return f"<{kind} " + " ".join(f"{key}={quoteattr(str(value))}" for key, value in attrs.items()) + "/>"


def _define(draw: st.DrawFn, draft: _Draft, number: int) -> None:
    name = f"define{number}"
    fn = draw(
        st.sampled_from(
            ["split", "formula", "hash", "piecewise", "combine", "descartes", "hit", "sequence", "multi_hot",
             "identity", "pickcat", "clip", "bucketize_time"]
        )
    )  # fmt: skip
    attrs: dict[str, Any] = {"name": name, "fn": fn}
    if fn == "split":
        attrs |= {"from": draw(st.sampled_from(["s", "c"])), "sep": draw(st.sampled_from(["|", " ", "||", "a"]))}
        draft.lists.append(name)
    elif fn == "formula":
        attrs["expr"] = draw(formulas(draft.numbers))
        draft.numbers.append(name)
    elif fn == "clip":
        attrs |= {"from": draw(st.sampled_from(draft.numbers)), "min": -5, "max": draw(st.integers(-5, 100))}
        draft.numbers.append(name)
    elif fn in ("combine", "descartes"):
        attrs["from"] = _parts(draw, draft, fn)
        (draft.hashable if fn == "combine" else draft.lists).append(name)
    elif fn in ("hit", "sequence", "multi_hot"):
        attrs |= _selection(draw, draft, fn)
        draft.lists.append(name)
    elif fn == "identity":
        source = draw(st.sampled_from(["i", "index", "b"]))
        attrs["from"] = source
        draft.hashable.append(name)
    else:
        listed = _element_function(draw, draft, fn, attrs)
        (draft.lists if listed else draft.hashable).append(name)
    draft.lines.append(_element("define", attrs))


def _element_function(
    draw: st.DrawFn, draft: _Draft, fn: str, attrs: dict[str, Any], listed: bool | None = None
) -> bool:
    """from and parameters of a function applied element by element; whether its input is a list."""
    listed = draw(st.booleans()) if listed is None else listed
    if fn == "hash":
        attrs["from"] = draw(st.sampled_from(draft.lists if listed else draft.hashable))
    elif fn == "pickcat":
        attrs["from"] = draw(st.sampled_from(draft.lists if listed else draft.hashable))
        attrs |= {"dict": "cities", "unknown": draw(st.sampled_from(["0", "skip", "77"]))}
    elif fn == "piecewise":
        attrs |= {"from": "lf" if listed else draw(st.sampled_from(draft.numbers)), "bounds": _bounds(draw)}
    elif fn == "bucketize_time":
        listed = False
        source = draw(st.sampled_from(["t", "d", "epoch"]))
        attrs |= {"from": source, "part": draw(st.sampled_from(["hour", "weekday", "day", "month", "hour_of_week"]))}
        attrs["tz"] = draw(st.sampled_from(ZONES))
        if source == "epoch":
            attrs["unit"] = "s"
    return listed


def _parts(draw: st.DrawFn, draft: _Draft, fn: str) -> str:
    known = draft.hashable + draft.slots
    if fn == "descartes":
        known = known + draft.lists + draft.list_slots
        chosen = draw(st.lists(st.sampled_from(known), min_size=2, max_size=3))
        lists = [name for name in chosen if name in draft.lists or name in draft.list_slots]
        # Two long lists cross into more than 10,000 keys; one of them at most.
        chosen = [name for name in chosen if name not in lists[1:]] + ["s"] * min(1, len(lists[1:]))
        return " ".join(chosen if len(chosen) > 1 else [*chosen, "i"])
    return " ".join(draw(st.lists(st.sampled_from(known), min_size=2, max_size=4)))


def _selection(draw: st.DrawFn, draft: _Draft, fn: str) -> dict[str, Any]:
    first = draw(st.sampled_from(draft.lists))
    if fn in ("hit", "overlap"):
        return {"from": f"{first} {draw(st.sampled_from(draft.lists + draft.hashable))}"}
    return {"from": first, "length": draw(st.integers(1, 5))} if fn == "sequence" else {"from": first}


def _slot(draw: st.DrawFn, draft: _Draft, number: int) -> None:
    fn = draw(
        st.sampled_from(
            ["hash", "hash", "pickcat", "piecewise", "bucketize_time", "identity", "combine", "descartes", "hit",
             "sequence", "multi_hot"]
        )
    )  # fmt: skip
    name = f"slot{number}"
    attrs: dict[str, Any] = {"name": name, "id": draw(st.integers(0, 200)) * 10 + number, "fn": fn}
    weight: str | None = draw(st.sampled_from([None, None, "w", "i"]))
    if fn in ("combine", "descartes"):
        attrs["from"] = _parts(draw, draft, fn)
        listed = fn == "descartes"
    elif fn in ("hit", "sequence", "multi_hot"):
        attrs |= _selection(draw, draft, fn)
        listed = True
    elif fn == "identity":
        attrs["from"], listed = draw(st.sampled_from(["index", "b"])), False
    else:
        listed = _element_function(draw, draft, fn, attrs)
    if listed and attrs["from"].split()[0] == "ls" and fn not in ("descartes",) and draw(st.booleans()):
        weight = "lw"
    if weight:
        attrs["weight"] = weight
    if draw(st.booleans()):
        attrs["null"] = "key"
    (draft.list_slots if listed else draft.slots).append(name)
    draft.lines.append(_element("slot", attrs))


def _dense(draw: st.DrawFn, draft: _Draft, number: int) -> None:
    fn = draw(
        st.sampled_from(
            ["log", "log10", "log1p", "sqrt", "abs", "clip", "normalize", "formula", "identity", "overlap", "pickcat",
             "piecewise", "bucketize_time"]
        )
    )  # fmt: skip
    name = f"dense{number}"
    attrs: dict[str, Any] = {"name": name, "fn": fn}
    number_column = draw(st.sampled_from(draft.numbers))
    if fn == "formula":
        attrs["expr"] = draw(formulas(draft.numbers))
    elif fn == "overlap":
        attrs |= _selection(draw, draft, "overlap")
    elif fn in ("pickcat", "piecewise", "bucketize_time"):
        _element_function(draw, draft, fn, attrs, listed=False)
    else:
        attrs["from"] = number_column
        if fn == "clip":
            attrs["min"] = draw(st.floats(-1e3, 1e3))
        if fn == "normalize":
            zscore = draw(st.booleans())
            attrs |= {"mean": 3.5, "std": 0.3} if zscore else {"method": "minmax", "min": -2, "max": 17}
    if draw(st.booleans()):
        attrs["default"] = draw(st.sampled_from([-1, 0.25]))
    draft.lines.append(_element("dense", attrs))
    draft.numbers.append(name)
