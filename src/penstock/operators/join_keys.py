"""The type two join keys are compared in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.operators.base import Fault
from penstock.operators.join_condition import Pair

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def shared_type(a: pa.DataType | None, b: pa.DataType | None) -> pa.DataType | None:
    """The type that holds both keys without losing a value; None where there is none, or where one is unknown."""
    import pyarrow as pa

    from penstock.data.arrow_types import plain_values

    if a is None or b is None:
        return None
    a, b = plain_values(a), plain_values(b)
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        return _integer(a, b)
    if _number(a) and _number(b):
        return pa.float64()
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b) and bool(a.tz) == bool(b.tz):
        finest = max((a.unit, b.unit), key=("s", "ms", "us", "ns").index)
        return pa.timestamp(finest, a.tz)
    return None


def common_type(pair: Pair, a: pa.DataType, b: pa.DataType) -> tuple[Any, Fault | None]:
    """The Polars type to cast both keys to (None: none is needed), or OPER102 where they cannot be compared."""
    import pyarrow as pa

    if pa.types.is_nested(a) or pa.types.is_nested(b):
        nested = pair.left if pa.types.is_nested(a) else pair.right
        return None, Fault("OPER102", f"on: '{nested}' is {a if nested == pair.left else b}, which is no key")
    if a == b and not pa.types.is_dictionary(a):
        return None, None
    shared = shared_type(a, b)
    if shared is None:
        said = f"on: '{pair.left}' is {a} and '{pair.right}' is {b}: they cannot be equal"
        return None, Fault("OPER102", said, "derive a key of the other's type with cast(... as ...) before the join")
    return polars_type(shared), None


def polars_type(type_: pa.DataType) -> pl.DataType:
    """The Polars type of an Arrow type."""
    import polars as pl
    import pyarrow as pa

    series = pl.Series(pa.array([], type_))
    return series.dtype


def _number(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _integer(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The narrowest integer that holds both; u64 beside a signed one has none."""
    import pyarrow as pa

    signed = [pa.types.is_signed_integer(a), pa.types.is_signed_integer(b)]
    if signed[0] == signed[1]:
        return max((a, b), key=lambda t: t.bit_width)
    unsigned = b if signed[0] else a
    if unsigned.bit_width == 64:
        return None
    width = max(2 * unsigned.bit_width, (a if signed[0] else b).bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[width]
