"""Polars schemas as the checks see them: Arrow types, in their plain (not large, not view) forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.data.arrow_types import plain
from penstock.data.schema import Column, Info, Schema

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def schema_of(frame: pl.LazyFrame, checked: Info | None = None) -> Schema:
    """What the frame really holds; the roles and the plan of columns that kept their names come from `checked`."""
    roles = {c.name: c.role for c in checked} if isinstance(checked, Schema) else {}
    plan = checked.plan if isinstance(checked, Schema) else ""
    columns = (Column(name, arrow_type(dtype), roles.get(name, "")) for name, dtype in frame.collect_schema().items())
    return Schema(tuple(columns), plan)


def arrow_type(dtype: pl.DataType) -> pa.DataType | None:
    """The Arrow type of a Polars type; None where Arrow has none (Python objects)."""
    import polars as pl

    if isinstance(dtype, pl.Object):
        return None
    return plain(pl.Series("", [], dtype=dtype).to_arrow().type)
