"""Frames as libsvm rows: which columns are label, keys and weights, and the text of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock import native
from penstock.data.schema import Schema
from penstock.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import polars as pl


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
    slots = [name for name in schema.with_role("slot") if not name.endswith("__weight")]
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
    return f"{key}__weight" if f"{key}__weight" in schema else ""


def lines(frame: pl.LazyFrame, rows: Layout, step: str, keep: Sequence[str]) -> pl.LazyFrame:
    """One string column `line`; a batch's rows stand in one value, line breaks between them, where nothing is kept."""
    import polars as pl

    keys = [
        pl.col(key).fill_null(pl.lit([], dtype=pl.List(pl.Int64))) if len(rows.slots) > 1 else pl.col(key)
        for key, _ in rows.slots
    ]
    columns = [pl.col(rows.label).cast(pl.Float32).alias("label")]
    cast = [
        key.cast(pl.List(pl.UInt64), wrap_numerical=True).cast(pl.List(pl.Int64), wrap_numerical=True) for key in keys
    ]
    columns.append((pl.concat_list(cast) if len(cast) > 1 else cast[0]).alias("keys"))
    if any(weight for _, weight in rows.slots):
        parts = []
        for key, weight in rows.slots:
            part = pl.col(weight) if weight else pl.col(key).list.eval(pl.element().is_not_null())
            part = part.cast(pl.List(pl.Float32))
            parts.append(part.fill_null(pl.lit([], dtype=pl.List(pl.Float32))) if len(rows.slots) > 1 else part)
        columns.append((pl.concat_list(parts) if len(parts) > 1 else parts[0]).alias("weights"))
    if rows.qid:
        columns.append(pl.col(rows.qid).cast(pl.Int64).alias("qid"))
    types = frame.collect_schema()
    schema = {**{name: types[name] for name in keep}, "line": pl.String()}
    return frame.select(*keep, *columns).map_batches(
        _Writer(step, tuple(keep)), schema=schema, validate_output_schema=False, streamable=True
    )


@dataclass(frozen=True)
class _Writer:
    step: str
    keep: tuple[str, ...]

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        given = batch.drop(self.keep).to_arrow()
        types = {
            "label": pa.float32(),
            "keys": pa.list_(pa.int64()),
            "weights": pa.list_(pa.float32()),
            "qid": pa.int64(),
        }
        table = given.cast(pa.schema([(name, types[name]) for name in given.column_names])).combine_chunks()
        parts = table.to_batches()
        try:
            text = b"".join(native.LibsvmWriter().lines(part) for part in parts)
        except ValueError as error:
            raise DataError(
                f"output '{self.step}': {error}",
                "libsvm needs a label, and as many weights as keys, in every row",
                "DATA022",
            ) from error
        if self.keep:
            rows = text.decode().splitlines()
            return batch.select(self.keep).with_columns(pl.Series("line", rows, dtype=pl.String))
        whole = [text[:-1].decode()] if text else []
        return pl.DataFrame({"line": whole}, schema={"line": pl.String})


def used(rows: Layout) -> set[str]:
    """Every column that ends up in the file."""
    return {rows.label, rows.qid, *(name for slot in rows.slots for name in slot)} - {""}
