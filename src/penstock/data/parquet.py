"""Parquet and ORC: headers for the checks, lazy frames for the engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from penstock.data.arrow_types import merged
from penstock.data.frames import lazy_frame
from penstock.data.parquet_columns import batches, readable
from penstock.data.partitions import partition_fields, partition_values, with_partitions
from penstock.data.paths import File
from penstock.data.stores import filesystem, storing
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl

Format = Literal["parquet", "orc"]


def read_schema(files: list[File], format_: Format) -> pa.Schema:
    """The columns of all files from their footers, then the folders' columns; metadata is the first file's.

    Raises `DataError`: DATA004 not such a file or cut short, DATA005 a type that changes between files.
    """
    return _cached_schema(tuple((file, _changed_ns(file)) for file in files), format_)


@lru_cache(64)
def _cached_schema(stamped: tuple[tuple[File, int], ...], format_: Format) -> pa.Schema:
    files = [file for file, _ in stamped]
    if len(stamped) == 1:
        schemas = [_cached_footer(*stamped[0], format_)]
    else:
        with ThreadPoolExecutor(8) as pool:
            schemas = list(pool.map(lambda one: _cached_footer(*one, format_), stamped))
    schema = merged(files, schemas)
    for field in partition_fields(files):
        index = schema.get_field_index(field.name)
        schema = schema.append(field) if index < 0 else schema.set(index, field)
    return schema


def scan(files: list[File], format_: Format) -> pl.LazyFrame:
    """A lazy frame over the files, in their order. Local Parquet goes through Polars' own scanner."""
    import polars as pl

    from penstock.data.arrow_types import polars_schema

    schema = read_schema(files, format_)
    fields = partition_fields(files)
    if format_ == "parquet" and not fields and not any(file.remote for file in files) and readable(schema):
        return lazy_frame(schema, lambda columns: _columns(files, schema, columns), format_)
    if format_ == "parquet" and not any(file.remote for file in files):
        paths = [file.url for file in files]
        whole = polars_schema(schema)
        folders = {field.name: whole[field.name] for field in fields}
        own = {} if _same_columns(files) else {n: t for n, t in whole.items() if n not in folders}
        return pl.scan_parquet(
            paths,
            glob=False,
            hive_partitioning=bool(fields),
            hive_schema=folders or None,
            schema=own or None,
            missing_columns="insert" if own else "raise",
            extra_columns="ignore",
        ).select(schema.names)
    return lazy_frame(schema, lambda columns: _batches(files, schema, fields, format_, columns), format_)


def _same_columns(files: list[File]) -> bool:
    names = [_footer(file, "parquet").names for file in files]
    return all(n == names[0] for n in names)


def _footer(file: File, format_: Format) -> pa.Schema:
    return _cached_footer(file, _changed_ns(file), format_)


def _changed_ns(file: File) -> int:
    """When a local file was last written: what is remembered of it stands as long. A remote one has its `mark`."""
    return 0 if file.remote else os.stat(file.url).st_mtime_ns  # noqa: PTH116  asked of every file of a flow


@lru_cache(4096)
def _cached_footer(file: File, changed_ns: int, format_: Format) -> pa.Schema:
    with _opened(file, format_) as opened:
        if format_ == "orc":
            return opened.schema
        stored = {k: v for k, v in (opened.metadata.metadata or {}).items() if k != b"ARROW:schema"}
        return opened.schema_arrow.with_metadata(stored or None)


class _opened:
    """A Parquet or ORC file, opened; what Arrow says of a damaged one becomes a `DataError`."""

    def __init__(self, file: File, format_: Format) -> None:
        self.file, self.format = file, format_

    def __enter__(self) -> Any:
        with storing(self.file.url, "read"), _damage(self.file, self.format):
            if self.file.remote:
                fs, path = filesystem(self.file.url)
                self.stream: Any = fs.open(path, "rb")
            else:
                self.stream = pa.OSFile(self.file.url)
            if self.format == "orc":
                from pyarrow import orc

                return orc.ORCFile(self.stream)
            from pyarrow import parquet

            return parquet.ParquetFile(self.stream)

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class _damage:
    def __init__(self, file: File, format_: Format) -> None:
        self.file, self.format = file, format_

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and not error.errno):
            raise damaged(self.file, self.format) from error


def damaged(file: File, format_: Format) -> DataError:
    """Say what the file looks like instead: text, empty, or cut short."""
    name = {"parquet": "Parquet", "orc": "ORC"}[format_]
    magic = {"parquet": b"PAR1", "orc": b"ORC"}[format_]
    head = _head(file)
    if not head:
        said, hint = "it is empty", "was its writer interrupted?"
    elif head.startswith(magic):
        said, hint = (
            "it begins like one, but its footer is missing or damaged",
            "was it cut short in a copy, or is it still being written?",
        )
    elif _is_text(head):
        said, hint = "it holds text", 'read it with type="csv", "json" or "text"'
    else:
        said, hint = f"it does not begin with {magic.decode()}", "which program wrote it?"
    return DataError(f"{file.url} is not a whole {name} file: {said}", hint, "DATA004")


def _head(file: File) -> bytes:
    if file.remote:
        fs, path = filesystem(file.url)
        return bytes(fs.read_block(path, 0, 512))
    with Path(file.url).open("rb") as stream:
        return stream.read(512)


def _is_text(head: bytes) -> bool:
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return b"\0" not in head and printable >= 0.95 * len(head)


def _batches(
    files: list[File], schema: pa.Schema, fields: list[pa.Field], format_: Format, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    wanted = schema.names if columns is None else columns
    folders = {field.name for field in fields}
    for file in files:
        values = partition_values(file, fields)
        with _opened(file, format_) as opened, _damage(file, format_):
            here = _footer(file, format_).names
            own = [name for name in wanted if name in here and name not in folders]
            for batch in _raw(opened, format_, own):
                batch = with_partitions(batch, values, fields)
                yield _aligned(batch, pa.schema([schema.field(name) for name in wanted]))


def _columns(files: list[File], schema: pa.Schema, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    wanted = schema.names if columns is None else columns
    for file in files:
        with _opened(file, "parquet") as opened, _damage(file, "parquet"):
            own = [name for name in wanted if name in _footer(file, "parquet").names]
            for batch in batches(file, opened, own, partial(_after, opened, own)):
                yield _aligned(batch, pa.schema([schema.field(name) for name in wanted]))


def _after(opened: Any, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """What follows so many rows."""
    for batch in _raw(opened, "parquet", columns):
        yield batch.slice(min(rows, batch.num_rows))
        rows = max(0, rows - batch.num_rows)


def _raw(opened: Any, format_: Format, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if format_ == "parquet":
        yield from opened.iter_batches(65_536, columns=columns)
    else:
        for stripe in range(opened.nstripes):
            batch = opened.read_stripe(stripe, columns=columns)
            for start in range(0, batch.num_rows, 65_536):
                yield batch.slice(start, 65_536)


def _aligned(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The schema's columns in its order; those the file lacks are null."""
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        column = pa.nulls(batch.num_rows, field.type) if index < 0 else batch.column(index)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
