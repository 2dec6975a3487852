"""Arrow types as formats and checks compare them: in their plain (not large, not view) forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.data.paths import File
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def plain(type_: pa.DataType) -> pa.DataType:
    """`large_string` and `string_view` are `string` to a check, and so inside lists and structs."""
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(plain(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(plain(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, plain(f.type)) for f in type_])
    if pa.types.is_dictionary(type_):
        return plain(type_.value_type)
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
            if plain(known.type) == plain(field.type) or pa.types.is_null(field.type):
                continue
            if pa.types.is_null(known.type):
                fields[field.name] = (field, file)
                continue
            raise DataError(
                f"column '{field.name}' is {plain(known.type)} in {first.url} but {plain(field.type)} in {file.url}",
                "read them as two inputs and cast one, or write the files anew with one type",
                "DATA005",
            )
    metadata = schemas[0].metadata if schemas else None
    return pa.schema([field for field, _ in fields.values()], metadata)
