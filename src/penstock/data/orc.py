"""ORC files written batch by batch: one file, or one for each value of the partition columns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.data.arrow_types import plain_values
from penstock.data.holding import held
from penstock.data.partitions import partition_folder
from penstock.data.stores import storing
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def write_orc(
    batches: Iterator[pa.RecordBatch], schema: pl.Schema, target: Path, keys: Sequence[str], compression: str
) -> None:
    """Write all batches. Raises `DataError` DATA019 for a column that ORC cannot hold."""
    whole = _orc_schema(schema)
    body = pa.schema([field for field in whole if field.name not in keys])
    writers: dict[str, Any] = {}
    streams: list[_Patient] = []
    with storing(str(target)), ExitStack() as open_files:

        def writer(folder: str) -> Any:
            if folder not in writers:
                path = target / folder / "part-00000.orc" if target.is_dir() else target
                path.parent.mkdir(parents=True, exist_ok=True)
                from pyarrow import orc

                name = {"gzip": "zlib", "none": "uncompressed"}.get(compression, compression)
                stream = open_files.enter_context(_Patient(path))
                streams.append(stream)
                writers[folder] = open_files.enter_context(orc.ORCWriter(stream, compression=name))
            return writers[folder]

        if not keys:
            writer("").write(body.empty_table())
        for batch in batches:
            table = pa.Table.from_batches([batch]).cast(whole)
            for folder, part in _parts(table, keys):
                writer(folder).write(part.select(body.names))
            _raise_first(streams)
    with storing(str(target)):
        _raise_first(streams)


class _Patient(io.RawIOBase):
    """A file that keeps the system's error for later: ORC's writer ends the process when a write of its own fails."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._stream = path.open("wb", buffering=0)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view and self.error is None:
                view = view[self._stream.write(view) :]
        except OSError as error:
            self.error = error
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def _raise_first(streams: Sequence[_Patient]) -> None:
    for stream in streams:
        if stream.error is not None:
            raise stream.error


def _orc_schema(schema: pl.Schema) -> pa.Schema:
    import polars as pl

    fields = []
    for field in pl.DataFrame(schema=schema).to_arrow().schema:
        type_ = held("orc", field.type)
        if type_ is None:
            raise DataError(
                f"column '{field.name}' is {plain_values(field.type)}, which orc cannot hold", "", "DATA019"
            )
        fields.append(pa.field(field.name, type_))
    return pa.schema(fields)


def _parts(table: pa.Table, keys: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The table by folder, each part's rows in order."""
    if not keys:
        yield "", table
        return
    import polars as pl

    frame = pl.DataFrame(table)
    for values, part in frame.partition_by(list(keys), maintain_order=True, as_dict=True).items():
        folder = partition_folder(dict(zip(keys, values, strict=True)))
        yield folder, part.to_arrow().cast(table.schema)
