"""Arrow columns as the tensors that a served model takes, and back: what a client sends (CONTRACT §5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import RequestError

#: A tensor: name, shape, elements as one flat array; a null element is null in the request.
Tensor = tuple[str, list[int], pa.Array]
#: Name, datatype of the protocol, shape (-1: any size).
Declared = tuple[str, str, Sequence[int]]

TYPES = {
    "BOOL": pa.bool_(), "UINT8": pa.uint8(), "UINT16": pa.uint16(), "UINT32": pa.uint32(), "UINT64": pa.uint64(),
    "INT8": pa.int8(), "INT16": pa.int16(), "INT32": pa.int32(), "INT64": pa.int64(), "FP32": pa.float32(),
    "FP64": pa.float64(), "BYTES": pa.large_string(),
}  # fmt: skip


def tensors_of(data: pa.RecordBatch | pa.Table, inputs: Iterable[Declared]) -> list[Tensor]:
    """The columns of `data` that are inputs, a tensor [rows] each; columns that are missing are left out (null).

    Raises `RequestError` for a column that cannot be what the input wants.
    """
    found = []
    for name, datatype, _ in inputs:
        if name not in data.schema.names:
            continue
        column = data.column(name)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if datatype != "BYTES" and pa.types.is_nested(array.type):
            found.append(_matrix(array, datatype, name))
        else:
            found.append((name, [len(array)], column_as(array, datatype, name)))
    return found


def _matrix(array: pa.Array, datatype: str, name: str) -> Tensor:
    """A column of lists of one length as [rows, length]."""
    lengths = set(pc.list_value_length(array).to_pylist())
    if len(lengths) > 1 or None in lengths:
        raise RequestError(f"column '{name}' holds lists of different lengths, and the model takes a matrix")
    return name, [len(array), *lengths], column_as(array.flatten(), datatype, name)


def column_as(array: pa.Array, datatype: str, name: str) -> pa.Array:
    """One column as the elements of a tensor: dates as YYYY-MM-DD, timestamps as microseconds, lists as JSON."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        array, type_ = array.dictionary_decode(), type_.value_type
    if pa.types.is_null(type_):
        return pa.nulls(len(array), TYPES[datatype])
    if pa.types.is_timestamp(type_):
        array = array.cast(pa.timestamp("us", type_.tz), safe=False).cast(pa.int64())
    elif pa.types.is_nested(type_):
        array = pa.array([None if v is None else json.dumps(v, default=str) for v in array.to_pylist()], pa.string())
    elif datatype == "BYTES" and pa.types.is_date(type_):
        array = pc.strftime(array.cast(pa.date32()), format="%Y-%m-%d")
    if pa.types.is_floating(array.type) and datatype.startswith(("INT", "UINT")):
        raise RequestError(f"column '{name}' is {type_}, and the model takes {datatype}", "cast it where it is read")
    try:
        return array.cast(TYPES[datatype])
    except pa.ArrowInvalid as error:
        raise RequestError(f"column '{name}' is {type_}, and the model takes {datatype}: {error}") from None
    except pa.ArrowNotImplementedError:
        raise RequestError(f"column '{name}' is {type_}, and the model takes {datatype}") from None


def array_of(tensor: Tensor) -> Any:
    """A numeric tensor as NumPy, in its shape."""
    _, shape, elements = tensor
    return elements.to_numpy(zero_copy_only=False).reshape(shape)
