"""Parquet files of numbers and lists of numbers alone, which is what mapped samples are, through a reader of our own.

Their lists are told by runs of levels and their values copied, so that training does not wait for its reader. What the
reader does not know (another codec, nulls) is found page by page: the rest of such a file is read by Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock import native
from penstock.data.paths import File
from penstock.errors import DataError

if TYPE_CHECKING:
    from pyarrow.parquet import ColumnSchema, FileMetaData

#: Rows at a time: as many as training takes, so that nobody puts batches together.
BATCH_ROWS = 65_536
_NUMBERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64())


def readable(schema: pa.Schema) -> bool:
    """Whether files of these columns are read here: numbers and booleans, and at least one list of numbers."""
    lists = [field for field in schema if _is_list(field.type)]
    others = [field.type for field in schema if not _is_list(field.type)]
    return (
        bool(lists)
        and all(field.type.value_type in _NUMBERS for field in lists)
        and all(type_ in _NUMBERS or pa.types.is_boolean(type_) for type_ in others)
    )


def batches(
    file: File, opened: Any, columns: Sequence[str], rest: Callable[[int], Iterator[pa.RecordBatch]]
) -> Iterator[pa.RecordBatch]:
    """The rows of `columns`; `rest(rows)` reads what follows so many rows. `opened`: its `pyarrow.parquet.ParquetFile`.

    Raises `DataError` DATA004 where the file is damaged.
    """
    metadata: FileMetaData = opened.metadata
    schema = pa.schema([_given(opened.schema_arrow.field(name)) for name in columns])
    done = 0
    try:
        stored = [_stored(metadata, opened.schema_arrow.field(name)) for name in columns]
        for batch in native.ParquetColumns(file.url, schema, stored, metadata.num_rows, BATCH_ROWS):
            yield batch
            done += batch.num_rows
    except NotImplementedError:
        yield from rest(done)
    except ValueError as error:
        if isinstance(error, pa.ArrowException):
            raise
        hint = "was it cut short in a copy, or changed on its disk? write it again"
        raise DataError(f"{file.url} is damaged after row {done:,}: {error}", hint, "DATA004") from error


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_))


def _given(field: pa.Field) -> pa.Field:
    return field.with_type(pa.large_list(field.type.value_field)) if _is_list(field.type) else field


def _stored(metadata: FileMetaData, field: pa.Field) -> tuple[tuple[int, int, int], list[tuple[int, int, bool]]]:
    """A column's greatest levels, the level of an empty list, and its chunks. Raises NotImplementedError."""
    leaves: list[ColumnSchema] = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    at = [i for i, leaf in enumerate(leaves) if leaf.path.split(".")[0] == field.name]
    if len(at) != 1:
        raise NotImplementedError("a column of several leaves")
    leaf = leaves[at[0]]
    levels = (leaf.max_definition_level, leaf.max_repetition_level, int(field.nullable))
    chunks = []
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(at[0])
        if chunk.compression not in ("UNCOMPRESSED", "ZSTD"):
            raise NotImplementedError(chunk.compression)
        begin = chunk.data_page_offset
        if chunk.dictionary_page_offset:  # 0 is what some write for none
            begin = min(begin, chunk.dictionary_page_offset)
        chunks.append((begin, chunk.total_compressed_size, chunk.compression == "ZSTD"))
    return levels, chunks
