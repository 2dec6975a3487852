"""Events of a view, from files or a topic, in order, each batch with the position after it.

A position is JSON text: of a topic, partition -> offset; of files, which were read whole and how many rows of the next.
Offsets of events are counted through the files in the order in which they were read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa

from penstock.errors import DataError, PenstockError, did_you_mean
from penstock.features.views.model import ARROW, View
from penstock.operators.base import CheckContext, Input, RunContext
from penstock.operators.catalog import operator

if TYPE_CHECKING:
    import polars as pl

BATCH_ROWS = 100_000
#: Between looks for new files, and how long a look for new records waits.
_LOOK_S = 1.0
_PER_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_JSON = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


class Part(NamedTuple):
    """Some events: key columns, time (int64 microseconds), inputs. `position`: after them. `bad`: refused records."""

    rows: pa.RecordBatch
    offsets: pa.Array
    position: str
    bad: int = 0
    partition: str = "offset"  # as positions name it


@dataclass(frozen=True)
class Asking:
    """The little of a `RunContext` that an input asks for when it reads beside a flow."""

    flow_dir: Path
    step: str = "source"
    threads: int = 1
    values: Mapping[str, str] = field(default_factory=dict)

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        """Inputs tell of rejected rows here; `on_error` says what becomes of them."""


def read(
    view: View, after: str = "", *, most_rows: int = BATCH_ROWS, follow: bool = False, order: Sequence[str] = ()
) -> Iterator[Part]:
    """Events after a position, until there are no more for now; with `follow`, for ever.

    Files come by their names; `order`: those that come before all others, as a store read them. Raises `DataError`
    (VIEW025: a column is missing or of another type; VIEW024: a file that was read has changed), and what inputs and
    topics raise.
    """
    position = json.loads(after) if after else {}
    if view.source.topic:
        return _of_topic(view, {int(p): int(o) for p, o in position.items()}, most_rows, follow)
    return _following_files(view, position, most_rows) if follow else _of_files(view, position, most_rows, order)


def source_faults(view: View) -> Iterator[tuple[str, str, str]]:
    """(code, message, hint) of what is wrong with files: lost, or without the columns that the view reads."""
    source = view.source
    if source.topic or not source.type or not source.attrs.get("path"):
        return
    try:
        checked = _input(view).check(CheckContext(flow_dir=view.base))
    except (PenstockError, ValueError) as error:
        yield "VIEW009", f"the source of '{view.name}' cannot be read: {' '.join(str(error).split())[:200]}", ""
        return
    for fault in checked.faults:
        yield "VIEW009", f"the source of '{view.name}': {fault.message}", fault.hint
    schema: Any = checked.outputs.get("")
    if schema is None or schema.open:
        return
    for name in dict.fromkeys([*(k for k, _ in view.entity.keys), source.time, *view.inputs]):
        if name and name not in schema:
            hint = did_you_mean(name, schema.names, f"it has {', '.join(schema.names[:8])}")
            yield "VIEW009", f"the source of '{view.name}' has no column '{name}'", hint


def _input(view: View, path: str = "") -> Input:
    attrs = {**view.source.attrs, **({"path": path} if path else {})}
    return cast(Input, operator("input", view.source.type).model_validate(attrs))


# --- files ----------------------------------------------------------------------------------------------------


def read_files(position: str) -> list[str]:
    """The files that a store has read by a position, in that order."""
    found = json.loads(position) if position else {}
    return [*found.get("files", {}), *([found["current"]] if found.get("current") else [])]


def _of_files(view: View, position: Mapping[str, Any], most_rows: int, order: Sequence[str] = ()) -> Iterator[Part]:
    read = {name: list(seen) for name, seen in position.get("files", {}).items()}
    done, offset = int(position.get("rows", 0)), int(position.get("offset", 0))
    found = _input(view).paths(CheckContext(flow_dir=view.base))
    current = str(position.get("current", ""))
    turns = {name: turn for turn, name in enumerate(order)}
    todo = [name for name in found if name not in read]
    todo.sort(key=lambda name: (name != current, turns.get(name, len(turns)), name))
    for name in (*read, *([current] if current else [])):
        seen = read.get(name) or position.get("stamp")
        if name in found and _stamp(name) != seen:
            said = f"{name} was read for view '{view.name}' and has changed since"
            raise DataError(said, "events are only added; --anew reads all of them again", "VIEW024")
    for name in todo:
        skip = done if name == current else 0
        stamp, rows = _stamp(name), skip
        frame = cast("pl.LazyFrame", _input(view, name).read(cast(RunContext, Asking(view.base))))
        for part in _parts(view, frame, skip, most_rows):
            rows += part.num_rows
            offsets = pa.array(range(offset, offset + part.num_rows), pa.int64())
            offset += part.num_rows
            reached = {"files": read, "current": name, "stamp": stamp, "rows": rows, "offset": offset}
            yield Part(part, offsets, json.dumps(reached))
        read[name] = stamp
        nothing = _batch(view, {})
        yield Part(nothing, pa.array([], pa.int64()), json.dumps({"files": read, "offset": offset}))


def _following_files(view: View, position: Mapping[str, Any], most_rows: int) -> Iterator[Part]:
    while True:
        for part in _of_files(view, position, most_rows):
            yield part
            position = json.loads(part.position)
        time.sleep(_LOOK_S)


def _stamp(name: str) -> list[int]:
    try:
        stat = Path(name.removeprefix("file://")).stat()
    except OSError:
        return []  # a remote file: its name stands for what is in it
    return [stat.st_size, stat.st_mtime_ns]


def _parts(view: View, frame: pl.LazyFrame, skip: int, most_rows: int) -> Iterator[pa.RecordBatch]:
    import polars as pl

    chosen = normalised(view, frame)
    for part in chosen.slice(skip).collect_batches(chunk_size=most_rows, maintain_order=True, engine="streaming"):
        yield from part.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks().to_batches()


def normalised(view: View, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Key columns, time, inputs, of the types that the kernel takes. Raises `DataError` VIEW025."""
    source = view.source
    columns = [*keyed(view, frame), timed(frame, source.time, source.unit).alias("\x01time")]
    schema = frame.collect_schema()
    for name, kind in view.inputs.items():
        columns.append(_cast(name, kind, schema).alias(f"\x01{name}"))
    return frame.select(columns)


def keyed(view: View, frame: pl.LazyFrame) -> list[pl.Expr]:
    """The key columns of a frame."""
    schema = frame.collect_schema()
    return [_cast(name, kind, schema) for name, kind in view.entity.keys]


def timed(frame: pl.LazyFrame, name: str, unit: str) -> pl.Expr:
    """A column of times in microseconds since the epoch."""
    import polars as pl

    schema = frame.collect_schema()
    type_ = schema.get(name)
    column = pl.col(name)
    if type_ is None:
        raise _missing(name, schema.names())
    if isinstance(type_, pl.Datetime):
        return column.dt.epoch("us").cast(pl.Int64)
    if type_ == pl.Date:
        return column.cast(pl.Datetime("us")).dt.epoch("us")
    if type_.is_numeric() and unit:
        per = _PER_US[unit]
        scaled = column * per if type_.is_integer() else (column * per).round(0)
        return scaled.cast(pl.Int64, strict=False)
    hint = 'unit="s", "ms" or "us" says what a number means' if type_.is_numeric() else "a timestamp, date or number"
    raise DataError(f"'{name}' is {type_}, which is no time", hint, "VIEW025")


def _cast(name: str, kind: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    import polars as pl

    type_ = schema.get(name)
    if type_ is None:
        raise _missing(name, list(schema))
    fits = {
        "int": type_.is_integer(), "float": type_.is_numeric(), "bool": type_ == pl.Boolean,
        "str": type_ in (pl.String, pl.Categorical, pl.Enum) or type_ == pl.Null,
    }[kind]  # fmt: skip
    if not fits and type_ != pl.Null:
        raise DataError(f"column '{name}' is {type_}, and the view says {kind}", "cast it, or say so there", "VIEW025")
    types = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}
    return pl.col(name).cast(types[kind])


def _missing(name: str, known: list[str]) -> DataError:
    return DataError(
        f"there is no column '{name}'", did_you_mean(name, known, f"it has {', '.join(known[:8])}"), "VIEW025"
    )


# --- topics ---------------------------------------------------------------------------------------------------


def _of_topic(view: View, position: Mapping[int, int], most_rows: int, follow: bool) -> Iterator[Part]:
    from penstock.streams import open_topic

    with open_topic(view.source.topic, create=False) as topic:
        at = {p: position.get(p, topic.start(p)) for p in range(topic.partitions)}
        while (batches := topic.poll(at, records=most_rows, wait_s=_LOOK_S if follow else 0.0)) or follow:
            for partition, batch in batches.items():
                at[partition] = batch.next
                done = {str(p): o for p, o in sorted(at.items())}
                yield records(view, batch.records, done)._replace(partition=str(partition))


def records(view: View, given: Any, position: Mapping[str, int]) -> Part:
    """JSON records as events. Ticks are passed over; what is no such record is refused and counted."""
    names = [k for k, _ in view.entity.keys]
    kinds = [*(kind for _, kind in view.entity.keys), *view.inputs.values()]
    read = [*names, *view.inputs]
    columns: list[list[Any]] = [[] for _ in read]
    times: list[int] = []
    offsets: list[int] = []
    bad = 0
    per = _PER_US[view.source.unit or "ms"]
    for record in given:
        try:
            row = json.loads(record.value)
            if "_tick_ms" in row:
                continue
            values = [_value(row.get(name), kind) for name, kind in zip(read, kinds, strict=True)]
            when = row[view.source.time] * per if view.source.time else record.time_ms * 1_000
            if not abs(when) < 1 << 62:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError):
            bad += 1
            continue
        for column, value in zip(columns, values, strict=True):
            column.append(value)
        times.append(int(when))
        offsets.append(record.offset)
    keys = len(names)
    found = dict(zip(names, columns[:keys], strict=True))
    inputs = dict(zip(view.inputs, columns[keys:], strict=True))
    rows = _batch(view, {"keys": found, "times": times, "inputs": inputs})
    return Part(rows, pa.array(offsets, pa.int64()), json.dumps(position), bad)


def _value(value: Any, kind: str) -> Any:
    """A JSON value of that kind. Raises ValueError for one of another."""
    if value is None:
        return None
    if not isinstance(value, _JSON[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError
    if isinstance(value, int) and kind == "int" and not -(1 << 63) <= value < 1 << 63:
        raise ValueError
    return float(value) if kind == "float" else value


def _batch(view: View, given: Mapping[str, Any]) -> pa.RecordBatch:
    keys, inputs = given.get("keys", {}), given.get("inputs", {})
    arrays = [
        *(pa.array(keys.get(name, []), ARROW[kind]) for name, kind in view.entity.keys),
        pa.array(given.get("times", []), pa.int64()),
        *(pa.array(inputs.get(name, []), ARROW[kind]) for name, kind in view.inputs.items()),
    ]
    names = [*(k for k, _ in view.entity.keys), "\x01time", *(f"\x01{name}" for name in view.inputs)]
    return pa.RecordBatch.from_arrays(arrays, names)
