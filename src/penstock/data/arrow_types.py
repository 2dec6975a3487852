"""Arrow types as formats and checks compare them: in their plain (not large, not view) forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.data.paths import File
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def plain(type_: pa.DataType) -> pa.DataType:
    """`large_string` and `string_view` are `string`, and so inside lists and structs; a dictionary stays one."""
    return _plain(type_, plain, keep_dictionaries=True)


def plain_values(type_: pa.DataType) -> pa.DataType:
    """As `plain`, where a dictionary is but a way to store its values: in files, and where keys are compared."""
    return _plain(type_, plain_values, keep_dictionaries=False)


def _plain(type_: pa.DataType, inside: Callable[[pa.DataType], pa.DataType], *, keep_dictionaries: bool) -> pa.DataType:
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(inside(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(inside(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, inside(f.type)) for f in type_])
    if pa.types.is_dictionary(type_):
        values = inside(type_.value_type)
        return pa.dictionary(type_.index_type, values, type_.ordered) if keep_dictionaries else values
    return type_


def polars_schema(schema: pa.Schema) -> dict[str, pl.DataType]:
    """The same columns as Polars will hold them."""
    import polars as pl

    return dict(pl.DataFrame(schema.empty_table()).schema)


def merged(files: list[File], schemas: list[pa.Schema]) -> pa.Schema:
    """The columns of all files by name, in order of first appearance; a file without a column has nulls there.

    Raises `DataError` DATA005 where a column has different types, naming both files.
    """
    fields: dict[str, tuple[pa.Field, File]] = {}
    for file, schema in zip(files, schemas, strict=True):
        for field in schema:
            known, first = fields.setdefault(field.name, (field, file))
            if plain_values(known.type) == plain_values(field.type) or pa.types.is_null(field.type):
                continue
            if pa.types.is_null(known.type):
                fields[field.name] = (field, file)
                continue
            here, there = plain_values(field.type), plain_values(known.type)
            raise DataError(
                f"column '{field.name}' is {there} in {first.url} but {here} in {file.url}",
                "read them as two inputs and cast one, or write the files anew with one type",
                "DATA005",
            )
    metadata = schemas[0].metadata if schemas else None
    return pa.schema([field for field, _ in fields.values()], metadata)
