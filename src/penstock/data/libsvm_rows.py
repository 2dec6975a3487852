"""Frames as libsvm rows: which columns are label, keys and weights, and the text of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock import native
from penstock.data.schema import Schema
from penstock.data.text_sinks import Compression, place, sink_lines
from penstock.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

_TYPES = {"label": pa.float32(), "keys": pa.list_(pa.int64()), "weights": pa.list_(pa.float32()), "qid": pa.int64()}


@dataclass(frozen=True)
class Layout:
    """The columns that make a row. `slots`: (keys, weights or ""), joined in this order."""

    label: str
    slots: tuple[tuple[str, str], ...]
    qid: str = ""


def layout(schema: Schema, label: str, keys: Sequence[str], weights: str) -> Layout:
    """Find the columns: those named, else the slots by role, else `keys` and `weights`, else `indices` and `values`.

    Raises `DataError` DATA022 where there is no label or nothing that is keys.
    """
    if label not in schema and not schema.open:
        labelled = schema.with_role("label")
        if label != "label" or not labelled:
            raise DataError(
                f"there is no column '{label}' to be the label",
                did_you_mean(label, schema.names, 'name it: label="..."'),
                "DATA022",
            )
        label = labelled[0]
    qid = "qid" if "qid" in schema else ""
    for name in (*keys, *([weights] if weights else [])):
        if name not in schema and not schema.open:
            raise DataError(f"there is no column '{name}'", did_you_mean(name, schema.names), "DATA022")
    if keys:
        return Layout(label, tuple((key, weights if weights else _weight(schema, key)) for key in keys), qid)
    slots = schema.with_role("slot")
    companions = {_weight(schema, slot) for slot in slots}
    slots = tuple(slot for slot in slots if slot not in companions)
    if slots:
        return Layout(label, tuple((slot, _weight(schema, slot)) for slot in slots), qid)
    for flat, values in (("keys", "weights"), ("indices", "values")):
        if flat in schema:
            return Layout(label, ((flat, values if values in schema else ""),), qid)
    if schema.open:
        return Layout(label, (("keys", ""),), qid)
    raise DataError(
        "no column holds keys: there are no slots, and neither 'keys' nor 'indices'",
        'map the rows with `features` first, or name the lists: keys="..."',
        "DATA022",
    )


def _weight(schema: Schema, key: str) -> str:
    """The weights of a slot, or of the `keys` of the flat form."""
    if key == "keys" and "weights" in schema:
        return "weights"
    return f"{key}__weight" if f"{key}__weight" in schema else ""


def sink(
    frame: pl.LazyFrame,
    rows: Layout,
    step: str,
    target: Path,
    suffix: str,
    compression: Compression,
    by: Sequence[str],
) -> pl.LazyFrame:
    """Write the rows as text. A plain file takes each batch's text as it comes; else Polars compresses and parts it."""
    import polars as pl

    chosen = frame.select(*by, *_columns(rows))
    text = _Text(step)
    place_ = place(target, suffix, by)
    if compression == "none" and isinstance(place_, Path):
        place_.write_bytes(b"")
        sink: pl.LazyFrame = chosen.sink_batches(lambda batch: _append(place_, text(batch)), lazy=True)
        return sink

    def as_lines(batch: pl.DataFrame) -> pl.DataFrame:
        written = text(batch.drop(by)).decode()
        if not by:  # a batch's rows stand in one value, the line breaks between them
            return pl.DataFrame({"line": [written[:-1]] if written else []}, schema={"line": pl.String})
        return batch.select(by).with_columns(pl.Series("line", written.splitlines(), dtype=pl.String))

    types = frame.collect_schema()
    schema = {**{name: types[name] for name in by}, "line": pl.String()}
    lines = chosen.map_batches(as_lines, schema=schema, validate_output_schema=False, streamable=True)
    return sink_lines(lines, target, suffix, compression, by)


def _columns(rows: Layout) -> list[pl.Expr]:
    """Label, keys and, where any slot has them, weights, under the names that the writer knows."""
    import polars as pl

    keys, weights = [], []
    for key, weight in rows.slots:
        # Keys are u64 in some frames and i64 in others: the same bits.
        column = pl.col(key).cast(pl.List(pl.UInt64), wrap_numerical=True).cast(pl.List(pl.Int64), wrap_numerical=True)
        keys.append(column)
        one = pl.col(key).list.eval(pl.element().is_not_null())
        weights.append((pl.col(weight) if weight else one).cast(pl.List(pl.Float32)))
    columns = [pl.col(rows.label).cast(pl.Float32).alias("label"), _joined(keys).alias("keys")]
    if any(weight for _, weight in rows.slots):
        columns.append(_joined(weights).alias("weights"))
    if rows.qid:
        columns.append(pl.col(rows.qid).cast(pl.Int64).alias("qid"))
    return columns


def _joined(lists: list[pl.Expr]) -> pl.Expr:
    """The lists of a row one after another; a null list is an empty one."""
    import polars as pl

    return lists[0] if len(lists) == 1 else pl.concat_list([one.fill_null([]) for one in lists])


def _append(path: Path, text: bytes) -> None:
    """Nothing stays open between batches, for nobody says which one is the last."""
    with path.open("ab", buffering=0) as stream:
        view = memoryview(text)
        while view:
            view = view[stream.write(view) :]


@dataclass(frozen=True)
class _Text:
    """The lines of a batch of label, keys, weights, qid."""

    step: str

    def __call__(self, batch: pl.DataFrame) -> bytes:
        given = batch.to_arrow()
        table = given.cast(pa.schema([(name, _TYPES[name]) for name in given.column_names])).combine_chunks()
        writer = native.LibsvmWriter()
        try:
            return b"".join(writer.lines(part) for part in table.to_batches())
        except ValueError as error:
            hint = "libsvm needs a label, and as many weights as keys, in every row"
            raise DataError(f"output '{self.step}': {error}", hint, "DATA022") from error


def used(rows: Layout) -> set[str]:
    """Every column that ends up in the file."""
    return {rows.label, rows.qid, *(name for slot in rows.slots for name in slot)} - {""}
