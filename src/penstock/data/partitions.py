"""Columns that stand in folder names: `dt=2026-01-02/city=Oslo/part-0.parquet`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from urllib.parse import quote

import pyarrow as pa

from penstock.data.paths import NULL_PARTITION, File
from penstock.errors import DataError

Value = str | int | date | None


def partition_fields(files: list[File]) -> list[pa.Field]:
    """The partition columns of all files: int64 where every value is a plain integer, date32 where every value is a
    date, else string. Raises `DataError` DATA005 where files lie under different columns."""
    names = [name for name, _ in files[0].partitions] if files else []
    for file in files:
        if [name for name, _ in file.partitions] != names:
            here = ", ".join(name for name, _ in file.partitions) or "no name=value folder"
            raise DataError(
                f"{files[0].url} lies under {', '.join(names) or 'no name=value folder'} but {file.url} under {here}",
                "read folders of different layouts as separate inputs",
                "DATA005",
            )
    return [pa.field(name, _type([f.partitions[i][1] for f in files])) for i, name in enumerate(names)]


def partition_values(file: File, fields: list[pa.Field]) -> dict[str, Value]:
    """What a file's folders say, as values of the columns' types."""
    texts = dict(file.partitions)
    return {field.name: _value(texts[field.name], field.type) for field in fields}


def with_partitions(batch: pa.RecordBatch, values: dict[str, Value], fields: list[pa.Field]) -> pa.RecordBatch:
    """Put the folders' columns after the file's own (in place of a column of the same name)."""
    for field in fields:
        column = pa.repeat(pa.scalar(values[field.name], field.type), batch.num_rows)
        index = batch.schema.get_field_index(field.name)
        batch = batch.append_column(field, column) if index < 0 else batch.set_column(index, field, column)
    return batch


def partition_folder(values: Mapping[str, object]) -> str:
    """The folder of these values: `dt=2026-01-02/city=Oslo`, escaped as URLs are."""
    return "/".join(f"{quote(name, safe='')}={_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    if value is None:
        return NULL_PARTITION
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")


def _type(texts: list[str | None]) -> pa.DataType:
    given = [text for text in texts if text is not None]
    if given and all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in given):
        return pa.int64()
    if given and all(_is_date(text) for text in given):
        return pa.date32()
    return pa.string()


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _value(text: str | None, type_: pa.DataType) -> Value:
    if text is None:
        return None
    if pa.types.is_int64(type_):
        return int(text)
    return date.fromisoformat(text) if pa.types.is_date32(type_) else text
