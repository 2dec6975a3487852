"""The readers in Rust as lazy frames: which files, which columns, what becomes of bad rows.

Every row of a file is judged by all its columns, wanted or not: which rows a flow sees never depends on what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa

from penstock.data.frames import MappedBy, Source, lazy_frame, with_source
from penstock.data.partitions import partition_fields, partition_values, with_partitions
from penstock.data.paths import File
from penstock.data.rejects import RejectFile
from penstock.data.stores import filesystem, storage_error
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl

OnError = Literal["fail", "drop", "keep"]
#: Rows that inference looks at, of the first file.
SAMPLE_ROWS = 10_000


class NativeReader(Protocol):
    """Gives (index of the file, rows, bad rows)."""

    def __iter__(self) -> Iterator[tuple[int, pa.RecordBatch, list[tuple[int, str, str, str]]]]: ...
    def map(self, plan: Any, keep: list[str], form: str, threads: int) -> None:
        """Give rows as a feature plan maps them."""


#: What the native readers take: a name, and for files that only Python can open a function that opens it.
NativeFile = tuple[str, Callable[[], Any] | None]
#: Starts a native reader over these files, building the columns marked as wanted.
Start = Callable[[list[NativeFile], list[bool]], "NativeReader"]


@dataclass(frozen=True)
class Rejecting:
    """What becomes of bad rows. `told` hears how many there were."""

    on_error: OnError = "fail"
    errors: str = ""
    told: Callable[[str], None] = print


def native_file(file: File) -> NativeFile:
    return (file.url, partial(_open_remote, file.url) if file.remote else None)


def text_frame(files: Sequence[File], schema: pa.Schema, start: Start, rejecting: Rejecting, name: str) -> pl.LazyFrame:
    """A frame of the files' rows and their folders' columns. `schema`: what the files themselves hold."""
    folders = partition_fields(list(files))
    whole = schema
    for field in folders:
        index = whole.get_field_index(field.name)
        whole = whole.append(field) if index < 0 else whole.set(index, field)

    def batches(columns: Sequence[str] | None, mapping: MappedBy | None = None) -> Iterator[pa.RecordBatch]:
        wanted = [columns is None or field.name in columns for field in schema]
        if not any(wanted):
            wanted[0] = True
        rejects = RejectFile(rejecting.errors)
        try:
            reader = start([native_file(file) for file in files], wanted)
            if mapping is not None:
                reader.map(mapping.kernel, list(mapping.keep), mapping.form, mapping.threads)
            for index, batch, bad in reader:
                rejects.add(files[index].url, bad)
                yield with_partitions(batch, partition_values(files[index], folders), folders)
        except ValueError as error:
            rejects.abandon()
            raise sentence(error, files) from error
        except GeneratorExit:  # enough rows were read
            rejects.finish()
            raise
        except BaseException:
            rejects.abandon()
            raise
        rejects.finish()
        if rejects.rows:
            where = f"; they are in {rejecting.errors}" if rejecting.errors else ""
            did = "dropped" if rejecting.on_error == "drop" else "kept with null in the bad field"
            rejecting.told(f"{rejects.rows} bad row(s) {did}{where}")

    def first(columns: Sequence[str], rows: int) -> pa.RecordBatch | None:
        try:
            reader = start([native_file(file) for file in files], [field.name in columns for field in schema])
            return next((batch.slice(0, rows) for _, batch, _ in reader if batch.num_rows), None)
        except ValueError:  # whoever reads the rows will tell
            return None

    frame = lazy_frame(whole, batches, name)
    # Folders' columns are put beside the rows after they were read.
    return frame if folders else with_source(frame, Source(batches, batches, first))


def sentence(error: ValueError, files: Sequence[File]) -> DataError:
    """What a native reader raised, as a colleague would say it. Re-raises what is no reader's error."""
    if len(error.args) != 6:
        raise error
    kind, index, line, column, reason, text = error.args
    url = files[index].url
    if kind == "io":
        return storage_error(OSError(line, reason), url, "read")
    if kind == "damaged":
        return DataError(f"cannot read {url}: {reason}", _damage_hint(reason), "DATA016")
    if kind == "long":
        return DataError(
            f"{url}:{line}: the line is longer than {int(reason) >> 20} MB",
            "is it text with one record a line, and is its suffix right?",
            "DATA008",
        )
    if kind == "header":
        return DataError(
            f"{url}:1: {reason}", 'say names="..." (and header="false" if there is none) to name them', "DATA009"
        )
    where = f"column '{column}': " if column else ""
    shown = text if len(text) <= 120 else text[:117] + "..."
    return DataError(f"{url}:{line}: {where}{reason}", f"{_row_hint(column, reason)}; the row is: {shown}", "DATA007")


def _damage_hint(reason: str) -> str:
    if "UTF-16" in reason:
        return "convert it, e.g. with iconv -f utf-16 -t utf-8"
    if "Parquet" in reason:
        return 'read it with type="parquet"'
    if "gzip" in reason or "zstd" in reason:
        return "rename it: compression goes by the suffix"
    if "zip archive" in reason:
        return "unpack it, or save the sheet as CSV"
    return "was it cut short in a copy? compare its size with the source's"


def _row_hint(column: str, reason: str) -> str:
    if "encoding" in reason:
        return 'is it encoding="gbk" or "latin-1"? on_error="drop" leaves such rows out'
    if "is not of type" in reason:
        return f'say types="{column}:str" if it is text; on_error="drop" or "keep" lets the rest through'
    return 'on_error="drop" leaves such rows out, errors="bad.csv" keeps them aside'


def _open_remote(url: str) -> Any:
    fs, path = filesystem(url)
    return fs.open(path, "rb")
