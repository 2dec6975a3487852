"""Random expressions over random rows: the local engine answers as a slow evaluator in plain Python does.

The evaluator shares no code with the package: a strategy draws the text of an expression together with a Python
function that computes it row by row, written from the contract's words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.schema import Schema
from penstock.operators.expressions import to_polars

Row = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Made:
    """An expression as text, and what it computes."""

    text: str
    value: Callable[[Row], Any]


# --- the contract in plain Python --------------------------------------------------------------------------------


def wrapped(n: int) -> int:
    return (n + 2**63) % 2**64 - 2**63


def strict(f: Callable[..., Any]) -> Callable[..., Any]:
    """Null if an argument is null."""
    return lambda *args: None if any(a is None for a in args) else f(*args)


def rank(value: Any) -> Any:
    """A key whose order is the contract's: NaN above every number, strings by bytes."""
    if isinstance(value, float):
        return (1, 0.0) if math.isnan(value) else (0, value)
    return value.encode() if isinstance(value, str) else value


def equal(a: Any, b: Any) -> bool:
    return bool(rank(a) == rank(b))


def times(a: float, b: float) -> float:
    return a * b


def over(a: float, b: float) -> float | None:
    return None if b == 0 else a / b


def whole(a: int, b: int) -> int | None:
    if b == 0:
        return None
    size = abs(a) // abs(b)
    return wrapped(-size if (a < 0) != (b < 0) else size)


def left_over(a: int, b: int) -> int | None:
    return None if b == 0 else int(math.copysign(1, a)) * (abs(a) % abs(b))


def left_over_double(a: float, b: float) -> float | None:
    if b == 0:
        return None
    return math.nan if math.isinf(a) or math.isnan(a) or math.isnan(b) else math.fmod(a, b)


def rounded(x: float, digits: int) -> float:
    scaled = x * float(10**digits)
    if math.isnan(scaled) or abs(scaled) >= 2**52:
        return x
    size = abs(scaled)
    away = math.floor(size) + (size - math.floor(size) >= 0.5)
    return math.copysign(away, x) / float(10**digits)


def cut(f: Callable[[float], int]) -> Callable[[float], float]:
    return lambda x: math.copysign(f(x), x) if math.isfinite(x) else x


def to_int(x: float) -> int | None:
    return int(x) if math.isfinite(x) and -(2.0**63) <= x < 2.0**63 else None


def text_to_int(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or not all(c in "0123456789" for c in digits):
        return None
    n = int(text)
    return n if -(2**63) <= n < 2**63 else None


def text_to_date(text: str) -> date | None:
    if len(text) != 10 or not all(c in "0123456789-" for c in text) or text[4] + text[7] != "--":
        return None
    try:
        return date(int(text[:4]), int(text[5:7]), int(text[8:]))
    except ValueError:
        return None


def substr(text: str, start: int, length: int) -> str:
    first = start - 1 if start > 0 else 0 if start == 0 else len(text) + start
    return text[max(first, 0) : max(first + max(length, 0), 0)]


def pad(text: str, size: int) -> str:
    return ("*" * max(size - len(text), 0) + text)[:size]


def piece(text: str, n: int) -> str:
    parts = text.split("a")
    at = n - 1 if n > 0 else len(parts) + n
    return parts[at] if 0 <= at < len(parts) else ""


def add_days(n: int, d: date) -> date | None:
    try:
        return d + timedelta(days=n)
    except OverflowError:
        return None


def add_months(n: int, d: date) -> date | None:
    months = d.year * 12 + d.month - 1 + n
    year, month = divmod(months, 12)
    if not 1 <= year <= 9999:
        return None
    for day in (d.day, 30, 29, 28):
        try:
            return date(year, month + 1, min(day, d.day))
        except ValueError:
            continue
    raise AssertionError("a month has 28 days")


def instant(seconds: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1) + timedelta(seconds=seconds)
    except OverflowError:
        return None


def both(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def either(a: bool | None, b: bool | None) -> bool | None:
    found = both(None if a is None else not a, None if b is None else not b)
    return None if found is None else not found


def distinct(a: Any, b: Any) -> bool:
    return (a is None) != (b is None) if a is None or b is None else not equal(a, b)


def among(value: Any, options: list[Any]) -> bool | None:
    if value is None:
        return None
    if any(o is not None and equal(value, o) for o in options):
        return True
    return None if None in options else False


def like(text: str, pattern: str) -> bool:
    """By dynamic programming over the pattern."""
    reached = {0}
    for char in text:
        reached = _skip(reached, pattern)
        reached = {p + 1 for p in reached if p < len(pattern) and pattern[p] in (char, "_") and pattern[p] != "%"} | {
            p for p in reached if p < len(pattern) and pattern[p] == "%"
        }
    return len(pattern) in _skip(reached, pattern)


def _skip(reached: set[int], pattern: str) -> set[int]:
    found = set(reached)
    for p in sorted(reached):
        while p < len(pattern) and pattern[p] == "%":
            p += 1
            found.add(p)
    return found


# --- expressions ---------------------------------------------------------------------------------------------------

INTS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 10, 2**63 - 1, -(2**63), 2**53 + 1]),
    st.integers(-100, 100),
    st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip
SMALL = st.integers(-(2**31), 2**31 - 1)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 2.5, math.inf, -math.inf, math.nan, 1e300, 2.0**63]),
    st.floats(-1000, 1000),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", "a", "aa", "12", "-7", "1.5", "2024-02-29", "2023-02-29", " 1", "é", "😀a", "%", "_"]),
    st.text(alphabet="abAB1% _é😀\n'", max_size=6),
)
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
STAMPS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))
COLUMNS: dict[str, tuple[str, st.SearchStrategy[Any], pl.DataType]] = {
    "i": ("int", INTS, pl.Int64()),
    "k": ("int", SMALL, pl.Int32()),
    "x": ("double", FLOATS, pl.Float64()),
    "f": ("double", st.floats(width=32), pl.Float32()),
    "s": ("text", TEXTS, pl.String()),
    "u": ("text", TEXTS, pl.String()),
    "b": ("bool", st.booleans(), pl.Boolean()),
    "d": ("date", DATES, pl.Date()),
    "ts": ("stamp", STAMPS, pl.Datetime("us")),
}
KINDS = ("int", "double", "text", "bool", "date", "stamp")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def leaf(draw: Draw, kind: str) -> Made:
    names = [name for name, (k, _, _) in COLUMNS.items() if k == kind]
    if draw(st.integers(0, 3)):
        name = draw(st.sampled_from(names))
        return Made(name, lambda row: row[name])
    if kind == "int":
        n = draw(INTS)
        return Made(str(n), lambda row: n)
    if kind == "double":
        v = draw(st.floats(-1e6, 1e6))
        return Made(f"{v:.20f}", lambda row: float(f"{v:.20f}"))
    if kind == "text":
        t = draw(TEXTS)
        return Made(quoted(t), lambda row: t)
    if kind == "bool":
        flag = draw(st.sampled_from([True, False, None]))
        return Made({True: "true", False: "false", None: "cast(null as bool)"}[flag], lambda row: flag)
    if kind == "date":
        d = draw(DATES)
        return Made(f"date '{d.isoformat()}'", lambda row: d)
    t = draw(STAMPS)
    return Made(f"timestamp '{t.isoformat()}'", lambda row: t)


def call(template: str, f: Callable[..., Any], *args: Made) -> Made:
    return Made(template.format(*(a.text for a in args)), lambda row: f(*(a.value(row) for a in args)))


#: template, function, kinds of the arguments: what gives each kind.
RULES: dict[str, list[tuple[str, Callable[..., Any], tuple[str, ...]]]] = {
    "int": [
        ("({} + {})", strict(lambda a, b: wrapped(a + b)), ("int", "int")),
        ("({} - {})", strict(lambda a, b: wrapped(a - b)), ("int", "int")),
        ("({} * {})", strict(lambda a, b: wrapped(a * b)), ("int", "int")),
        ("({} % {})", strict(left_over), ("int", "int")),
        ("({} div {})", strict(whole), ("int", "int")),
        ("(- ({}))", strict(lambda a: wrapped(-a)), ("int",)),
        ("abs({})", strict(lambda a: wrapped(abs(a))), ("int",)),
        ("sign({})", strict(lambda a: (a > 0) - (a < 0)), ("int",)),
        ("length({})", strict(len), ("text",)),
        ("strpos({}, 'a')", strict(lambda t: t.find("a") + 1), ("text",)),
        ("cast({} as bigint)", strict(to_int), ("double",)),
        ("cast({} as bigint)", strict(text_to_int), ("text",)),
        ("cast({} as bigint)", strict(int), ("bool",)),
        ("year({})", strict(lambda d: d.year), ("date",)),
        ("weekday({})", strict(lambda d: d.weekday()), ("stamp",)),
        ("week({})", strict(lambda d: d.isocalendar().week), ("date",)),
        ("day_of_year({})", strict(lambda d: d.timetuple().tm_yday), ("date",)),
        ("hour({})", strict(lambda t: t.hour), ("stamp",)),
        ("microsecond({})", strict(lambda t: t.microsecond), ("stamp",)),
        ("epoch({}, 'ms')", strict(lambda t: (t - datetime(1970, 1, 1)) // timedelta(milliseconds=1)), ("stamp",)),
        ("date_diff('day', {}, {})", strict(lambda a, b: (b - a).days), ("date", "date")),
        (
            "date_diff('month', {}, {})",
            strict(lambda a, b: (b.year - a.year) * 12 + b.month - a.month),
            ("date", "stamp"),
        ),
    ],
    "double": [
        ("({} + {})", strict(lambda a, b: a + b), ("double", "double")),
        ("({} - {})", strict(lambda a, b: a - float(b)), ("double", "int")),
        ("({} * {})", strict(times), ("double", "double")),
        ("({} / {})", strict(over), ("double", "double")),
        ("({} / {})", strict(lambda a, b: over(float(a), float(b))), ("int", "int")),
        ("({} % {})", strict(left_over_double), ("double", "double")),
        ("abs({})", strict(abs), ("double",)),
        ("round({})", strict(lambda x: rounded(x, 0)), ("double",)),
        ("round({}, 2)", strict(lambda x: rounded(x, 2)), ("double",)),
        ("ceil({})", strict(cut(math.ceil)), ("double",)),
        ("floor({})", strict(cut(math.floor)), ("double",)),
        ("trunc({})", strict(cut(math.trunc)), ("double",)),
        ("sqrt({})", strict(lambda x: None if x < 0 else math.sqrt(x)), ("double",)),
        ("cast({} as double)", strict(float), ("int",)),
    ],
    "text": [
        ("({} || {})", strict(lambda a, b: a + b), ("text", "text")),
        ("concat_ws('-', {}, {})", lambda a, b: "-".join(p for p in (a, b) if p is not None), ("text", "text")),
        ("substr({}, {}, {})", strict(substr), ("text", "int", "int")),
        ("left({}, {})", strict(lambda t, n: t[: max(n, 0)]), ("text", "int")),
        ("right({}, {})", strict(lambda t, n: t[max(len(t) - max(n, 0), 0) :]), ("text", "int")),
        ("replace({}, 'a', 'bb')", strict(lambda t: t.replace("a", "bb")), ("text",)),
        ("trim({})", strict(lambda t: t.strip(" ")), ("text",)),
        ("rtrim({}, 'ab')", strict(lambda t: t.rstrip("ab")), ("text",)),
        ("lpad({}, 4, '*')", strict(lambda t: pad(t, 4)), ("text",)),
        ("reverse({})", strict(lambda t: t[::-1]), ("text",)),
        ("upper({})", strict(str.upper), ("text",)),
        ("split_part({}, 'a', 2)", strict(lambda t: piece(t, 2)), ("text",)),
        ("split_part({}, 'a', -1)", strict(lambda t: piece(t, -1)), ("text",)),
        ("cast({} as string)", strict(str), ("int",)),
        ("cast({} as string)", strict(lambda b: str(b).lower()), ("bool",)),
        ("cast({} as string)", strict(lambda d: d.isoformat()), ("date",)),
    ],
    "bool": [
        ("({} and {})", both, ("bool", "bool")),
        ("({} or {})", either, ("bool", "bool")),
        ("(not {})", strict(lambda a: not a), ("bool",)),
        ("({} is true)", lambda a: a is True, ("bool",)),
        ("starts_with({}, {})", strict(str.startswith), ("text", "text")),
        ("ends_with({}, {})", strict(str.endswith), ("text", "text")),
        ("contains({}, {})", strict(lambda a, b: b in a), ("text", "text")),
        ("({} like 'a%')", strict(lambda t: like(t, "a%")), ("text",)),
        ("({} like '%_a_%')", strict(lambda t: like(t, "%_a_%")), ("text",)),
        ("({} = {})", strict(lambda a, b: equal(float(a), b)), ("int", "double")),
        ("({} < {})", strict(lambda a, b: datetime(a.year, a.month, a.day) < b), ("date", "stamp")),
        ("is_nan({})", strict(math.isnan), ("double",)),
        ("cast({} as bool)", strict(lambda x: x != 0), ("double",)),
        ("({} in (1, 3, null))", lambda a: among(a, [1, 3, None]), ("int",)),
    ],
    "date": [
        ("date_add('day', {}, {})", strict(add_days), ("int", "date")),
        ("date_add('month', {}, {})", strict(add_months), ("int", "date")),
        ("date_trunc('month', {})", strict(lambda d: d.replace(day=1)), ("date",)),
        ("date_trunc('year', {})", strict(lambda d: d.replace(month=1, day=1)), ("date",)),
        ("cast({} as date)", strict(text_to_date), ("text",)),
        ("cast({} as date)", strict(lambda t: t.date()), ("stamp",)),
    ],
    "stamp": [
        ("from_epoch({})", strict(instant), ("int",)),
        ("cast({} as timestamp)", strict(lambda d: datetime(d.year, d.month, d.day)), ("date",)),
        ("date_trunc('hour', {})", strict(lambda t: t.replace(minute=0, second=0, microsecond=0)), ("stamp",)),
    ],
}


def _any_kind(kind: str) -> list[tuple[str, Callable[..., Any], tuple[str, ...]]]:
    """What every kind has: choices give the kind itself."""
    return [
        ("case when {} then {} else {} end", lambda c, a, b: a if c else b, ("bool", kind, kind)),
        ("coalesce({}, {})", lambda a, b: b if a is None else a, (kind, kind)),
        ("nullif({}, {})", lambda a, b: None if a is not None and b is not None and equal(a, b) else a, (kind, kind)),
        ("greatest({}, {})", lambda a, b: _most(a, b, 1), (kind, kind)),
        ("least({}, {})", lambda a, b: _most(a, b, -1), (kind, kind)),
    ]


def _most(a: Any, b: Any, sign: int) -> Any:
    if a is None or b is None:
        return b if a is None else a
    better = rank(b) > rank(a) if sign > 0 else rank(b) < rank(a)
    return b if better else a


def _comparisons(kind: str) -> list[tuple[str, Callable[..., Any], tuple[str, ...]]]:
    pair = (kind, kind)
    return [
        ("({} = {})", strict(equal), pair),
        ("({} <> {})", strict(lambda a, b: not equal(a, b)), pair),
        ("({} < {})", strict(lambda a, b: rank(a) < rank(b)), pair),
        ("({} >= {})", strict(lambda a, b: rank(a) >= rank(b)), pair),
        ("({} is null)", lambda a: a is None, (kind,)),
        ("({} is distinct from {})", distinct, pair),
        (
            "({} between {} and {})",
            lambda v, a, b: both(
                strict(lambda p, q: rank(p) >= rank(q))(v, a), strict(lambda p, q: rank(p) <= rank(q))(v, b)
            ),
            (kind, kind, kind),
        ),
        ("({} in ({}, {}))", lambda v, a, b: among(v, [a, b]), (kind, kind, kind)),
    ]  # fmt: skip


for _kind in KINDS:
    RULES["bool"] += _comparisons(_kind)
for _kind in KINDS:
    RULES[_kind] += _any_kind(_kind)


@st.composite
def expressions(draw: Draw, kind: str | None = None, depth: int = 3) -> Made:
    kind = kind or draw(st.sampled_from(KINDS))
    if depth == 0 or not draw(st.integers(0, 4)):
        return draw(leaf(kind))
    template, function, kinds = draw(st.sampled_from(RULES[kind]))
    return call(template, function, *(draw(expressions(k, depth - 1)) for k in kinds))


@st.composite
def tables(draw: Draw) -> pl.DataFrame:
    size = draw(st.integers(1, 6))
    return pl.DataFrame(
        {
            name: pl.Series(draw(st.lists(st.none() | values, min_size=size, max_size=size)), dtype=dtype)
            for name, (_, values, dtype) in COLUMNS.items()
        }
    )


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right  # the sign of a computed zero is not defined
    return type(left) is type(right) and left == right


def schema_of(frame: pl.DataFrame) -> Schema:
    return Schema.from_arrow(frame.to_arrow().schema)


SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(SLOW, max_examples=250)
@given(expressions(), tables())
def test_the_local_engine_answers_as_plain_python_does(made: Made, frame: pl.DataFrame) -> None:
    found = frame.lazy().with_columns(answer=to_polars(made.text, schema_of(frame))).collect(engine="streaming")

    expected = [made.value(row) for row in frame.to_dicts()]
    assert all(map(same, found["answer"].to_list(), expected)), (made.text, found["answer"].to_list(), expected)


@settings(SLOW, max_examples=60)
@given(expressions("bool"), expressions(), tables(), st.integers(1, 3))
def test_pushing_filters_down_and_chunking_change_nothing(
    tmp_path_factory: Any, where: Made, made: Made, frame: pl.DataFrame, rows: int
) -> None:
    schema = schema_of(frame)
    condition, value = to_polars(where.text, schema), to_polars(made.text, schema)
    plain = frame.with_columns(answer=value).filter(condition.fill_null(value=False))

    path: Path = tmp_path_factory.mktemp("rows") / "frame.parquet"
    frame.write_parquet(path, row_group_size=rows)
    pushed = pl.scan_parquet(path).with_columns(answer=value).filter(condition.fill_null(value=False))
    chunked = pl.concat([frame[at : at + rows] for at in range(0, len(frame), rows)], rechunk=False)
    in_chunks = chunked.lazy().filter(condition.fill_null(value=False)).with_columns(answer=value)

    for lazy in (pushed, in_chunks):
        found = lazy.collect(engine="streaming")
        assert len(found) == len(plain)
        for name in plain.columns:
            assert all(map(same, found[name].to_list(), plain[name].to_list()))
