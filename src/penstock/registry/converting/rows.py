"""Rows to prove a model with: what was given, as the model takes it, and the awkward ones that are added."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.registry.converting.tensors import Feed, Tensor
from penstock.registry.faults import ConversionError

Array = npt.NDArray[Any]

#: The name of the one column that rows without names are in.
MATRIX = "input"
MADE_UP = 64
#: A model of more columns than this has only so many of them nulled one by one.
NULLED = 64


def write(rows: Any, path: Path) -> None:
    """Store `rows=` as Parquet: a frame (pandas, Polars, Arrow), columns by name, arrays by input's name, or one array.

    Raises `ConversionError` (REG016) for anything else.
    """
    try:
        pq.write_table(_table(rows), path)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        said = f"rows= cannot be read as rows: {error}"
        raise ConversionError(said, "a frame, a dict of columns, or an array with an axis of rows", "REG016") from error


def read_file(path: Path) -> Any:
    """The rows in a .parquet, .csv, .json(l) or .npy file. Raises `ConversionError` (REG016)."""
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".csv":
            from pyarrow import csv

            return csv.read_csv(path)
        if path.suffix in (".json", ".jsonl", ".ndjson"):
            from pyarrow import json

            return json.read_json(path)
        return pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConversionError(
            f"the rows in {path} cannot be read: {error}", ".parquet .csv .json .npy", "REG016"
        ) from error


def _table(rows: Any) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if hasattr(rows, "to_arrow"):
        return rows.to_arrow()
    if type(rows).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(rows, preserve_index=False)
    if isinstance(rows, dict):
        return pa.table({str(name): _column(np.asarray(values)) for name, values in rows.items()})
    if isinstance(rows, list) and rows and isinstance(rows[0], dict):
        return pa.Table.from_pylist(rows)
    return pa.table({MATRIX: _column(np.asarray(rows))})


def _column(values: npt.NDArray[Any]) -> pa.Array:
    if values.ndim < 2:
        return pa.array(values)
    flat = values.reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def feed_of(table: pa.Table, inputs: Sequence[Tensor]) -> dict[str, npt.NDArray[Any]]:
    """Rows as the model's inputs take them, floats in f64: by name, or side by side where it takes one matrix.

    Raises `ConversionError` (REG016) naming what is missing.
    """
    names = table.column_names
    if all(tensor.name in names for tensor in inputs):
        return {tensor.name: _values(table[tensor.name], tensor) for tensor in inputs}
    whole = table[MATRIX] if names == [MATRIX] else None
    if len(inputs) == 1:
        [tensor] = inputs
        values = _values(whole, tensor) if whole is not None else np.column_stack([_numbers(table[n]) for n in names])
        if tensor.width not in (-1, int(np.prod(values.shape[1:], dtype=np.int64))):
            raise _misfit(tensor, values.shape[-1])
        return {
            tensor.name: values.reshape(len(values), *(tensor.shape[1:] if tensor.width >= 0 else values.shape[1:]))
        }
    if whole is not None:
        matrix = _lists(whole)
        if matrix.shape[1] == len(inputs):
            return {tensor.name: matrix[:, at : at + 1] for at, tensor in enumerate(inputs)}
    missing = next(tensor.name for tensor in inputs if tensor.name not in names)
    said = f"the model takes '{missing}', which is no column of the rows"
    raise ConversionError(said, f"their columns are {', '.join(names[:20])}", "REG016")


def _misfit(tensor: Tensor, found: int) -> ConversionError:
    said = f"the model takes {tensor.width} numbers a row, and the rows have {found}"
    return ConversionError(said, f"input '{tensor.name}' has the shape {list(tensor.shape)}", "REG016")


def _values(column: Any, tensor: Tensor) -> Array:
    if pa.types.is_nested(column.type):
        lists = _lists(column)
        if tensor.width not in (-1, lists.shape[1]):
            raise _misfit(tensor, lists.shape[1])
        return lists.reshape(len(lists), *tensor.shape[1:]) if tensor.width >= 0 else lists
    if tensor.datatype == "BYTES":
        texts: Array = column.cast(pa.string()).to_numpy(zero_copy_only=False).astype(object)
        return texts.reshape(-1, 1) if len(tensor.shape) == 2 else texts
    numbers = _numbers(column, whole=not tensor.is_float)
    return numbers.reshape(-1, *tensor.shape[1:]) if tensor.width == 1 else numbers


def _numbers(column: Any, whole: bool = False) -> Array:
    kind, found = column.type, column
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: Array = column.cast(pa.string()).to_numpy(zero_copy_only=False).astype(object)
        return texts
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        found = column.cast(pa.timestamp("us")).cast(pa.int64())
    if not (whole and not column.null_count and pa.types.is_integer(kind)):
        found = found.cast(pa.float64(), safe=False)
    numbers: Array = found.to_numpy(zero_copy_only=False)
    return numbers


def _lists(column: Any) -> Array:
    flat: Array = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def made_up(inputs: Sequence[Tensor], seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Rows for a model that came with none. Raises `ConversionError` (REG016) where nothing can be made up."""
    chance = np.random.default_rng(seed)
    feed: dict[str, npt.NDArray[Any]] = {}
    for tensor in inputs:
        if tensor.width < 0 or not tensor.is_float:
            said = f"input '{tensor.name}' is {tensor.datatype} {list(tensor.shape)}: rows for it cannot be made up"
            raise ConversionError(said, "give --rows FILE (rows= in Python), or --unproven", "REG016")
        feed[tensor.name] = chance.normal(size=(MADE_UP, *tensor.shape[1:]))
    return feed


def awkward(feed: Feed, inputs: Sequence[Tensor]) -> list[tuple[str, dict[str, npt.NDArray[Any]]]]:
    """Rows that are added, each with what it is called: extremes of the numbers, nulls, texts never seen."""
    first = {name: values[:1] for name, values in feed.items()}
    floats = [tensor.name for tensor in inputs if tensor.is_float]
    texts = [tensor.name for tensor in inputs if tensor.datatype == "BYTES"]
    found: list[tuple[str, dict[str, npt.NDArray[Any]]]] = []

    def add(what: str, changed: dict[str, npt.NDArray[Any]]) -> None:
        found.append((what, {**first, **changed}))

    if floats:
        low = {n: np.nanmin(feed[n].astype(np.float64), axis=0, keepdims=True) for n in floats}
        high = {n: np.nanmax(feed[n].astype(np.float64), axis=0, keepdims=True) for n in floats}
        add("every number at its least", low)
        add("every number at its greatest", high)
        add("every number zero", {n: np.zeros_like(low[n]) for n in floats})
        add("every number ten times its greatest", {n: 10 * high[n] for n in floats})
        add("every number ten times its least", {n: 10 * low[n] for n in floats})
        add("every number null", {n: np.full_like(low[n], np.nan) for n in floats})
        for what, changed in _one_null(first, floats):
            add(what, changed)
    for name in texts:
        add(f"'{name}' a text never seen", {name: np.full_like(first[name], "\u2603 never seen")})
        add(f"'{name}' empty", {name: np.full_like(first[name], "")})
    return found


def _one_null(first: Feed, floats: Sequence[str]) -> list[tuple[str, dict[str, npt.NDArray[Any]]]]:
    found = []
    for name in floats:
        row = first[name].astype(np.float64).reshape(1, -1)
        for at in range(min(row.shape[1], NULLED)):
            changed = row.copy()
            changed[0, at] = np.nan
            what = f"'{name}' null" if row.shape[1] == 1 else f"'{name}[{at}]' null"
            found.append((what, {name: changed.reshape(first[name].shape)}))
    return found[:NULLED]


def plain_feed(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Rows for a model that does not say what it takes: arrays by name, or all columns side by side."""
    lists = {name: table[name] for name in table.column_names if pa.types.is_nested(table[name].type)}
    if lists or all(name == MATRIX or name.startswith(f"{MATRIX}_") for name in table.column_names):
        return {n: _lists(table[n]) if n in lists else _whole(table[n]) for n in table.column_names}
    return {MATRIX: np.column_stack([_whole(table[name]) for name in table.column_names])}


def _whole(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return _numbers(column, whole=pa.types.is_integer(column.type))
