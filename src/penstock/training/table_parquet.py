"""Rows of embedding tables as Parquet, for other tools and back: the same bits, in bounded memory.

Columns: `key` int64 (the bits of the u64), `values` and `state` (if any) fixed-size lists of float32, `count` and
`last_seen_s` uint32, `score` float32 where the table has one. Values that are stored as halves are written as the
float32 they stand for. What a row needs beyond its own is not there (Adam's count of steps, sketches of keys not yet
admitted): to train on, take a checkpoint (`penstock.training.checkpoints`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.training.artefacts import ArtefactError
from penstock.training.table_rows import LiveRows, RowBatch, RowSource, TableFacts, batches, number_of
from penstock.training.tables import EmbeddingTables

#: Key of the file's own metadata.
FACTS = b"penstock.table"

#: Keys, values, state, counts, last seen, scores: as `native.Tables.put` takes them.
Columns = tuple[Any, Any, Any, Any, Any, Any]


def to_parquet(source: RowSource | EmbeddingTables, table: str, path: Path) -> int:
    """Write a table's rows; returns how many. A file that was there is replaced when the new one is whole.

    Rows of a snapshot have `key` and `values` alone. Raises `RequestError` for a table that is not there,
    `ArtefactError` (TRAIN037) where the file cannot be written.
    """
    rows_of = LiveRows(source) if isinstance(source, EmbeddingTables) else source
    number = number_of(rows_of, table)
    facts, path = rows_of.tables[number], Path(path)
    aside = path.with_name(f".{path.name}.tmp")
    schema = _schema(facts, values_alone=rows_of.what == "snapshot")
    rows = 0
    try:
        with aside.open("wb") as file:
            # Checksums of pages: a damaged file is an error when it is read, not a wrong weight.
            with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for batch in batches(rows_of, number):
                    if len(batch.keys):
                        writer.write_batch(_record_batch(batch, schema))
                        rows += len(batch.keys)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        hint = "what was there before is whole; make room or permission, then try again"
        raise ArtefactError(f"{path}: writing it failed: {error}", hint, "TRAIN037", str(path)) from None
    finally:
        aside.unlink(missing_ok=True)
    return rows


def from_parquet(tables: EmbeddingTables, table: str, path: Path) -> int:
    """Put a file's rows into a table, in place of rows of the same keys; returns how many.

    The file is read through once before the first row is put, so on an error the table is as it was. Without `state`
    the optimizer begins anew, without `count` and `last_seen_s` the row was never seen. Raises `RequestError` for a
    table that is not there, `ArtefactError` for a file that cannot be read (TRAIN037), is damaged or has values that
    are not finite (TRAIN031), or is of another dim or optimizer (TRAIN033).
    """
    live = LiveRows(tables)
    number = number_of(live, table)
    facts, path = live.tables[number], Path(path)
    for _ in _read(path, facts):
        pass
    rows = 0
    for columns in _read(path, facts):
        tables.native.put(number, *columns)
        rows += len(columns[0])
    return rows


def _schema(facts: TableFacts, *, values_alone: bool) -> pa.Schema:
    fields = [pa.field("key", pa.int64(), nullable=False), _floats("values", facts.dim)]
    if not values_alone:
        fields += [_floats("state", _width(facts))] if facts.state else []
        fields += [pa.field(name, pa.uint32(), nullable=False) for name in ("count", "last_seen_s")]
        if facts.scored:
            fields.append(pa.field("score", pa.float32(), nullable=False))
    told = {"name": facts.name, "dim": facts.dim, "dtype": facts.dtype, "slots": facts.slots, "mapped": facts.mapped}
    if not values_alone:
        told |= {"optimizer": facts.optimizer, "state": facts.state}
    return pa.schema(fields, {FACTS: json.dumps(told).encode()})


def _floats(name: str, width: int) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("item", pa.float32(), nullable=False), width), nullable=False)


def _width(facts: TableFacts) -> int:
    return sum(width for _, width in facts.state)


def _record_batch(batch: RowBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = {
        "key": batch.keys,
        "values": batch.values,
        "state": batch.state,
        "count": batch.counts,
        "last_seen_s": batch.last_seen_s,
        "score": batch.scores,
    }
    arrays = []
    for field in schema:
        column: Any = columns[field.name]
        if pa.types.is_fixed_size_list(field.type):
            flat = pa.array(column.reshape(-1), pa.float32())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        else:
            arrays.append(pa.array(column, field.type))
    return pa.record_batch(arrays, schema=schema)


def _read(path: Path, facts: TableFacts) -> Iterator[Columns]:
    """The file's batches, each fit for the table."""
    before = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _compare(path, file.schema_arrow, facts)
            for record in file.iter_batches(1 << 16):
                yield _columns(path, record, facts, before)
                before += record.num_rows
    except pa.ArrowInvalid as error:
        hint = "write it again, or restore it from a copy"
        raise ArtefactError(f"{path} is damaged, or no Parquet: {error}", hint, "TRAIN031", str(path)) from None
    except OSError as error:
        # pyarrow tells damage of pages by OSError too, without an errno.
        code, hint = ("TRAIN037", "name the file that was meant") if error.errno else ("TRAIN031", "write it again")
        raise ArtefactError(f"{path}: reading it failed: {error}", hint, code, str(path)) from None


def _compare(path: Path, schema: pa.Schema, facts: TableFacts) -> None:
    def refuse(what: str) -> ArtefactError:
        hint = "declare the table as it was, or bring the file into this shape"
        return ArtefactError(f"{path}: {what}", hint, "TRAIN033", str(path))

    try:
        told = json.loads((schema.metadata or {}).get(FACTS, b"{}"))
    except ValueError:
        text = f"{path}: its facts under '{FACTS.decode()}' are damaged"
        raise ArtefactError(text, "write it again, or restore it from a copy", "TRAIN031", str(path), "facts") from None
    if told.get("optimizer", facts.optimizer) != facts.optimizer:
        raise refuse(f"optimizer is {told['optimizer']} there and {facts.optimizer} here")
    wanted = {field.name: field.type for field in _schema(facts, values_alone=False)}
    for name in ("key", "values"):
        if name not in schema.names:
            raise refuse(f"it has no column '{name}'")
    for name in schema.names:
        found = schema.field(name).type
        if name in wanted and not _alike(found, wanted[name]):
            raise refuse(f"column '{name}' is {found}, and table '{facts.name}' takes {wanted[name]}")


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(wanted):
        lists = pa.types.is_fixed_size_list(found)
        return bool(lists and found.list_size == wanted.list_size and found.value_type == wanted.value_type)
    return bool(found == wanted)


def _columns(path: Path, record: pa.RecordBatch, facts: TableFacts, before: int) -> Columns:
    rows = record.num_rows

    def column(name: str, kind: Any, width: int | None = None) -> Any:
        if name not in record.schema.names:
            return np.zeros((rows, width) if width is not None else rows, dtype=kind)
        held = record.column(name)
        flat = held.flatten() if width is not None else held
        if held.null_count or flat.null_count:
            hint = "every row has a key and all of its numbers"
            text = f"{path}: column '{name}' has nulls among the rows from {before + 1:,} on"
            raise ArtefactError(text, hint, "TRAIN031", str(path), name)
        numbers = np.ascontiguousarray(flat.to_numpy(zero_copy_only=False).astype(kind, copy=False))
        if kind is np.float32 and not np.isfinite(numbers).all():
            row = before + 1 + int(np.flatnonzero(~np.isfinite(numbers))[0]) // (width or 1)
            text = f"{path}: column '{name}' has a number that is not finite in row {row:,}"
            raise ArtefactError(text, "a table with one spreads it: drop that row", "TRAIN031", str(path), name)
        return numbers.reshape(rows, width) if width is not None else numbers

    return (
        column("key", np.int64),
        column("values", np.float32, facts.dim),
        column("state", np.float32, _width(facts) if "state" in record.schema.names else 0),
        column("count", np.uint32),
        column("last_seen_s", np.uint32),
        column("score", np.float32) if facts.scored else None,
    )
