"""JSON lines, plain text and libsvm: their schemas, and the frames of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock import native
from penstock.data.csv_files import ARROW_TYPES, Types, first_with_rows, given_type
from penstock.data.paths import File
from penstock.data.text_files import SAMPLE_ROWS, NativeFile, NativeReader, Rejecting, native_file, sentence, text_frame
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl

TEXT_SCHEMA = pa.schema([("value", pa.string())])
LIBSVM_SCHEMA = pa.schema(
    [
        ("label", pa.float32()),
        ("indices", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float32())),
        ("qid", pa.int64()),
    ]
)


def json_schema(files: Sequence[File], encoding: str, types: Types, columns: Sequence[str] = ()) -> pa.Schema:
    """The columns of the first rows of the first file; `types` adds columns those rows lack, and has the last word.
    Where there are no rows, `columns` are strings unless `types` says otherwise.

    Raises `DataError` where that file cannot be read, or holds no object in its first rows and nothing names columns.
    """
    sample = _first_rows(files, encoding)
    fields = [
        field if (kind := given_type(field.name, types)) is None else pa.field(field.name, ARROW_TYPES[kind])
        for field in sample
    ]
    known = {field.name for field in fields}
    fields += [pa.field(name, ARROW_TYPES[kind]) for name, kind in types if name not in known and name.isidentifier()]
    if not len(sample):
        known = {field.name for field in fields} | {name for name, _ in files[0].partitions}
        named = [(name, given_type(name, types) or "str") for name in columns if name not in known]
        fields += [pa.field(name, ARROW_TYPES[kind]) for name, kind in named]
    if not fields:
        first = first_with_rows(files)
        said = "is empty" if first.size_bytes == 0 else "holds no JSON object in its first rows"
        hint = 'each line must hold one object, {"a": 1}; types="a:int" or columns="a" reads an empty file with no rows'
        raise DataError(f"{first.url} {said}, so its columns are not known", hint, "DATA009")
    return pa.schema(fields)


def without_objects(files: Sequence[File], encoding: str) -> bool:
    """Whether the rows that columns are inferred from are none."""
    return not len(_first_rows(files, encoding))


def _first_rows(files: Sequence[File], encoding: str) -> pa.Schema:
    first = first_with_rows(files)
    return _json_sample(first, encoding, 0 if first.remote else Path(first.url).stat().st_mtime_ns)


@lru_cache(1024)
def _json_sample(file: File, encoding: str, mtime_ns: int) -> pa.Schema:
    try:
        return native.json_sample(native_file(file), encoding, SAMPLE_ROWS)
    except pa.ArrowInvalid as error:  # Arrow's names end at a NUL
        raise DataError(f"{file.url}: a key holds a NUL character", "leave it out of the keys", "DATA009") from error
    except ValueError as error:
        raise sentence(error, [file]) from error


def scan_json(
    files: Sequence[File], encoding: str, types: Types, columns: Sequence[str], rejecting: Rejecting, threads: int
) -> pl.LazyFrame:
    schema = json_schema(files, encoding, types, columns)

    def start(opened: list[NativeFile], wanted: list[bool]) -> NativeReader:
        reader: NativeReader = native.json_reader(opened, schema, wanted, rejecting.on_error, encoding, threads)
        return reader

    return text_frame(files, schema, start, rejecting, "json")


def scan_text(files: Sequence[File], encoding: str, rejecting: Rejecting, threads: int) -> pl.LazyFrame:
    def start(opened: list[NativeFile], wanted: list[bool]) -> NativeReader:
        reader: NativeReader = native.text_reader(opened, rejecting.on_error, encoding, threads)
        return reader

    return text_frame(files, TEXT_SCHEMA, start, rejecting, "text")


def scan_libsvm(files: Sequence[File], base: int, rejecting: Rejecting, threads: int) -> pl.LazyFrame:
    def start(opened: list[NativeFile], wanted: list[bool]) -> NativeReader:
        reader: NativeReader = native.libsvm_reader(opened, base, rejecting.on_error, threads)
        return reader

    return text_frame(files, LIBSVM_SCHEMA, start, rejecting, "libsvm")
