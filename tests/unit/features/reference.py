"""What CONTRACT §2 says, in the slowest and plainest Python: one row at a time, one function a feature function.

It shares nothing with the kernel but the resolved plan's JSON. Values are Python's own: str, bytes, int, float, bool,
date, datetime, or a list of those; None and NaN are null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import xxhash

NULL = (1 << 52) - 1
EPOCH = datetime(1970, 1, 1)


class RowRefused(Exception):
    """A row error; `item` is where."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(f"{item}: {reason}")
        self.item = item


@dataclass
class Keys:
    """A slot's keys, and a weight a key where the slot is weighted."""

    keys: list[int]
    weights: list[float] | None = None
    listed: bool = True


@dataclass
class Reference:
    """A plan's document, its dictionaries as lists of values, its user functions as Python functions."""

    document: Mapping[str, Any]
    dictionaries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def row(self, row: Mapping[str, Any]) -> list[tuple[str, list[int] | None, list[float] | None, float | None]]:
        """(name, keys, weights, dense) an output, in order."""
        values: list[Any] = []
        out: list[tuple[str, list[int] | None, list[float] | None, float | None]] = []
        for item in self.document["items"]:
            value = self.item(item, row, values)
            values.append(value)
            if item["as"] == "slot":
                weights = None if value.weights is None else [as_f32(w) for w in value.weights]
                out.append((item["name"], value.keys, weights, None))
            elif item["as"] == "dense":
                out.append((item["name"], None, None, value))
        return out

    @property
    def seed(self) -> int:
        return int(self.document["seed"])

    def hash(self, data: bytes) -> int:
        return xxhash.xxh3_64_intdigest(data, seed=self.seed)

    def item(self, item: Mapping[str, Any], row: Mapping[str, Any], values: Sequence[Any]) -> Any:
        def source(written: Mapping[str, Any]) -> Any:
            return row.get(written["column"]) if "column" in written else values[written["item"]]

        inputs = [source(written) for written in item["from"]]
        weight = source(item["weight"]) if "weight" in item else None
        if item["as"] == "dense":
            return dense(self.number(item, inputs), item.get("default", 0.0))
        if item["as"] == "define":
            return self.define(item, inputs)
        return self.slot(item, inputs, weight, "weight" in item)

    # --- defines and denses ---------------------------------------------------------------------------------

    def define(self, item: Mapping[str, Any], inputs: Sequence[Any]) -> Any:
        fn, params = item["fn"], item["params"]
        if fn == "identity":
            return inputs[0]
        if fn == "split":
            return None if inputs[0] is None else inputs[0].split(params["sep"])
        if fn in ("hit", "sequence", "multi_hot"):
            return None if inputs[0] is None else [value for _, value in self.chosen(fn, params, inputs)]
        if fn in ("hash", "pickcat", "piecewise", "bucketize_time") or self.maps_keys(item):
            if isinstance(inputs[0], list | Keys):
                return [self.value(item, [x]) for x in elements(inputs[0])]
            return self.value(item, inputs)
        if fn == "combine":
            return self.combined(inputs)
        if fn == "descartes":
            return [hashed for hashed, _ in self.crossed(item, inputs)]
        return self.number(item, inputs)

    def number(self, item: Mapping[str, Any], inputs: Sequence[Any]) -> float | None:
        """The f64 of a numeric function; None where it has none."""
        fn, params = item["fn"], item["params"]
        if fn == "overlap":
            a, b = ({self.hash(canonical(x)) for x in elements(value)} for value in inputs)
            return float(len(a & b)) if a and b else None
        if fn in ("pickcat", "piecewise", "bucketize_time") or self.maps_keys(item):
            value = self.value(item, inputs)
            return None if value is None else float(value)
        numbers = [as_number(x) for x in inputs]
        if fn == "formula":
            return evaluate(params["expr"], numbers)
        if fn == "udf":
            return float(self.functions[params["function"]](*numbers))
        x = numbers[0]
        if math.isnan(x):
            return None
        with np.errstate(all="ignore"):
            if fn in ("log", "log10", "log1p", "sqrt", "abs"):
                return float(getattr(np, fn)(np.float64(x)))
            if fn == "clip":
                return min(max(x, params.get("min", -math.inf)), params.get("max", math.inf))
            if fn == "normalize":
                low, width = (
                    (params["mean"], params["std"])
                    if params["method"] == "zscore"
                    else (params["min"], params["max"] - params["min"])
                )
                return float((np.float64(x) - low) / np.float64(width))
        assert fn == "identity", fn
        return x

    # --- values of single elements --------------------------------------------------------------------------

    def maps_keys(self, item: Mapping[str, Any]) -> bool:
        return item["fn"] == "udf" and self.document["functions"][item["params"]["function"]]["takes"] == "u64"

    def value(self, item: Mapping[str, Any], inputs: Sequence[Any]) -> int | None:
        """The value of one element: an index, or a hash's low 52 bits."""
        fn, params, x = item["fn"], item["params"], inputs[0]
        if any(is_null(each) for each in inputs):
            return None
        if fn == "hash":
            return value_of(self.hash(canonical(x)))
        if fn == "identity":
            if int(x) != x or not 0 <= x < NULL:
                raise RowRefused(item["name"], f"index {x}")
            return int(x)
        if fn == "pickcat":
            entries = self.dictionaries[params["dict"]]
            text = canonical(x)
            found = [entry.encode() for entry in entries]
            if text in found:
                return found.index(text) + 1
            return None if params["unknown"] == "skip" else params["unknown"]
        if fn == "piecewise":
            return sum(bound <= as_number(x) for bound in params["bounds"])
        if fn == "bucketize_time":
            return time_part(x, params)
        assert fn == "udf", fn
        args = [int(each) % (1 << 64) if isinstance(each, int) else self.hash(canonical(each)) for each in inputs]
        result = int(self.functions[params["function"]](*args)) % (1 << 64)
        return value_of(result) if item["as"] == "slot" else result

    def part(self, x: Any) -> int:
        """A part of combine or descartes; slots' keys come wrapped as `_Key`."""
        return x.key if isinstance(x, _Key) else self.hash(canonical(x))

    def combined(self, inputs: Sequence[Any]) -> int | None:
        parts = []
        for value in inputs:
            if isinstance(value, Keys):
                value = _Key(value.keys[0]) if value.keys else None
            if is_null(value):
                return None
            parts.append(self.part(value))
        return value_of(self.hash(b"".join(p.to_bytes(8, "little") for p in parts)))

    def crossed(self, item: Mapping[str, Any], inputs: Sequence[Any]) -> list[tuple[int, float]]:
        """(value, product of the parts' weights) of each combination."""
        parts: list[list[tuple[int, float]]] = []
        for value in inputs:
            if isinstance(value, Keys):
                parts.append(list(zip(value.keys, value.weights or [1.0] * len(value.keys), strict=True)))
            else:
                parts.append([(self.part(x), 1.0) for x in elements(value)])
        if math.prod(map(len, parts)) > item["params"]["max"]:
            raise RowRefused(item["name"], "too many")
        return [
            (value_of(self.hash(b"".join(p.to_bytes(8, "little") for p, _ in combo))), math.prod(w for _, w in combo))
            for combo in product(*parts)
        ]

    def chosen(self, fn: str, params: Mapping[str, Any], inputs: Sequence[Any]) -> list[tuple[int, Any]]:
        """(place, element) of the elements that hit, sequence and multi_hot choose."""
        numbered = [(place, x) for place, x in enumerate(as_list(inputs[0])) if not is_null(x)]
        if fn == "sequence":
            return numbered[-params["length"] :]
        if fn == "hit":
            wanted = {canonical(x) for x in elements(inputs[1])}
            return [(place, x) for place, x in numbered if canonical(x) in wanted]
        seen: set[bytes] = set()
        return [(p, x) for p, x in numbered if not (canonical(x) in seen or seen.add(canonical(x)))]

    # --- slots ----------------------------------------------------------------------------------------------

    def slot(self, item: Mapping[str, Any], inputs: Sequence[Any], weight: Any, weighted: bool) -> Keys:
        fn, base = item["fn"], item["id"] << 52
        own = weighted  # a crossing of weighted parts is weighted without a weight of its own
        found: list[tuple[int, float]] = []
        if fn == "combine":
            value = self.combined(inputs)
            found = [] if value is None else [(value, at(weight, 0, weighted))]
            null = value is None
        elif fn == "descartes":
            crossed = self.crossed(item, inputs)
            found = [(v, w * at(weight, place, weighted)) for place, (v, w) in enumerate(crossed)]
            null = not crossed
            weighted = weighted or any(isinstance(v, Keys) and v.weights is not None for v in inputs)
        elif fn in ("hit", "sequence", "multi_hot"):
            chosen = self.chosen(fn, item["params"], inputs)
            found = [(value_of(self.hash(canonical(x))), at(weight, place, weighted)) for place, x in chosen]
            null = not chosen
        elif fn == "udf" and not self.maps_keys(item):
            number = self.number(item, inputs)
            null = number is None or math.isnan(number)
            if not null:
                if number != int(number) or not 0 <= number < NULL:
                    raise RowRefused(item["name"], f"index {number}")
                found = [(int(number), at(weight, 0, weighted))]
        elif len(inputs) > 1:
            keys = [each.keys[0] if each.keys else None for each in inputs if isinstance(each, Keys)]
            value = self.value(item, [keys.pop(0) if isinstance(each, Keys) else each for each in inputs])
            null = value is None
            found = [] if value is None else [(value, at(weight, 0, weighted))]
        else:
            null = not elements(inputs[0])
            for place, x in enumerate(as_list(inputs[0])):
                value = None if is_null(x) else self.value(item, [x])
                if value is not None:
                    found.append((value, at(weight, place, weighted)))
        if null and item.get("null_key"):
            found = [(NULL, 1.0 if isinstance(weight, list) else at(weight, 0, own))]
        found = [(value, w) for value, w in found if not math.isnan(w)]
        return Keys([base | value for value, _ in found], [w for _, w in found] if weighted else None)


@dataclass(frozen=True)
class _Key:
    key: int


def is_null(x: Any) -> bool:
    return x is None or (isinstance(x, float) and math.isnan(x))


def as_list(value: Any) -> list[Any]:
    if isinstance(value, Keys):
        return list(value.keys)
    return value if isinstance(value, list) else [value]


def elements(value: Any) -> list[Any]:
    """The elements that are not null."""
    return [x for x in as_list(value) if not is_null(x)]


def at(weight: Any, place: int, weighted: bool) -> float:
    """The weight of one place: NaN drops the key."""
    if not weighted:
        return 1.0
    if isinstance(weight, list):
        weight = weight[place]
    return as_number(weight)


def as_number(x: Any) -> float:
    return math.nan if x is None else float(x)


def value_of(hashed: int) -> int:
    low = hashed & NULL
    return low - 1 if low == NULL else low


def canonical(x: Any) -> bytes:
    if isinstance(x, bytes):
        return x
    if isinstance(x, str):
        return x.encode()
    if isinstance(x, bool):
        return b"true" if x else b"false"
    if isinstance(x, datetime):
        return str((x.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)).encode()
    if isinstance(x, date):
        return x.isoformat().encode()
    assert isinstance(x, int), x
    return str(x).encode()


def time_part(x: Any, params: Mapping[str, Any]) -> int:
    if isinstance(x, datetime):
        moment = x.replace(tzinfo=UTC).astimezone(ZoneInfo(params["tz"]))
    elif isinstance(x, date):
        moment = datetime(x.year, x.month, x.day)
    else:
        per_second = {"s": 1, "ms": 1_000, "us": 1_000_000}[params["unit"]]
        micros = math.floor(x * (1_000_000 // per_second))
        moment = (EPOCH + timedelta(microseconds=micros)).replace(tzinfo=UTC).astimezone(ZoneInfo(params["tz"]))
    return {
        "hour": moment.hour,
        "weekday": moment.weekday(),
        "day": moment.day,
        "month": moment.month,
        "hour_of_week": moment.weekday() * 24 + moment.hour,
    }[params["part"]]


def as_f32(number: float) -> float:
    """Rounded once; beyond f32 it is infinite."""
    with np.errstate(all="ignore"):
        return float(np.float32(number))


def dense(number: float | None, default: float) -> float:
    rounded = as_f32(math.nan if number is None else number)
    return rounded if math.isfinite(rounded) else as_f32(default)


def evaluate(tree: Mapping[str, Any], args: Sequence[float]) -> float:
    """A formula's tree in numpy's f64: IEEE throughout, NaN spreads."""
    if "num" in tree:
        return float(tree["num"])
    if "arg" in tree:
        return args[tree["arg"]]
    values = [np.float64(evaluate(each, args)) for each in tree["args"]]
    name = tree.get("op") or tree["call"]
    if any(np.isnan(v) for v in values):
        return math.nan
    with np.errstate(all="ignore"):
        if name == "round":
            whole = np.trunc(values[0])
            return float(whole + np.copysign(abs(values[0] - whole) >= 0.5, values[0]))
        if name in ("min", "max"):
            return float((min if name == "min" else max)(values))
        functions: dict[str, Callable[..., Any]] = {
            "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod, "neg": np.negative,
            "pow": np.power, "floor": np.floor, "ceil": np.ceil, "abs": np.abs, "sqrt": np.sqrt,
            "exp": np.exp, "log": np.log, "log10": np.log10, "log1p": np.log1p,
        }  # fmt: skip
        return float(functions[name](*values))
