"""The inputs that read files: Parquet, ORC, CSV, JSON lines, text, libsvm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from penstock.data.arrow_types import plain
from penstock.data.paths import File, resolve
from penstock.data.schema import Schema
from penstock.data.stores import is_remote, local_path
from penstock.errors import DataError, did_you_mean
from penstock.operators.base import CheckContext, Checked, Fault, Input, Location, Names, RunContext

if TYPE_CHECKING:
    import polars as pl

_NOT_THERE = frozenset({"DATA001", "DATA002", "DATA003"})


class FileInput(Input):
    """What all of them share: finding the files, reading headers, keeping some columns."""

    path: Location = Field(
        description="a file, folder, glob or several; gz and zst by suffix; name=value folders are columns"
    )
    columns: Names = Field((), description="the columns to keep, in this order (default: all)")
    missing: Literal["error", "skip"] = Field(
        "error", description="what a path of several (a range of dates) that is not there means"
    )
    on_error: Literal["fail", "drop", "keep"] = Field(
        "fail", description="a bad row: fail the node, drop the row, or keep it with null in the bad field"
    )
    errors: Location = Field(
        "", description="where rejected rows go, with file, line and reason (.csv, else JSON lines)"
    )

    def check(self, context: CheckContext) -> Checked:
        """Headers only: the columns and types that reading will give."""
        if self._promised(context):
            return Checked({"": Schema.unknown()})
        try:
            schema = self.header(self.found(context.flow_dir))
        except DataError as error:
            return Checked({"": Schema.unknown()}, (Fault(error.code, error.message, error.hint),))
        known = Schema.from_arrow(pa.schema([f.with_type(plain(f.type)) for f in schema], schema.metadata))
        if not self.columns:
            return Checked({"": known})
        faults = tuple(
            Fault(
                "DATA006",
                f"there is no column '{name}' in {self.path}",
                did_you_mean(name, known.names, _list(known.names)),
            )
            for name in self.columns
            if name not in known
        )
        kept = tuple(column for name in self.columns if (column := known.get(name)) is not None)
        return Checked({"": known.with_columns(kept)}, faults)

    def paths(self, context: CheckContext) -> tuple[str, ...]:
        """The files, found now; () where an earlier node still has to write them."""
        try:
            return tuple(file.url for file in self.found(context.flow_dir))
        except DataError as error:
            if error.code in _NOT_THERE:
                return ()
            raise

    def read(self, context: RunContext) -> pl.LazyFrame:
        """Raises `DataError` where a file is missing, damaged, or has a bad row under on_error="fail"."""
        files = self.found(context.flow_dir)
        frame = self.scan(files, context)
        if not self.columns:
            return frame
        names = frame.collect_schema().names()
        for name in self.columns:
            if name not in names:
                raise DataError(
                    f"there is no column '{name}' in {self.path}", did_you_mean(name, names, _list(names)), "DATA006"
                )
        return frame.select(self.columns)

    def found(self, base: Path) -> list[File]:
        return resolve(self.path, base=base, missing=self.missing)

    def header(self, files: list[File]) -> pa.Schema:
        """The columns and types of these files, from as little of them as tells."""
        raise NotImplementedError

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        """All their rows, lazily."""
        raise NotImplementedError

    def _promised(self, context: CheckContext) -> bool:
        if self.path in context.promised:
            return True
        if is_remote(self.path):
            return any(self.path.startswith(promised.rstrip("/") + "/") for promised in context.promised)
        path = local_path(self.path)
        return any(str(place) in context.promised for place in (path, *path.parents))


class ParquetInput(FileInput):
    """Read Parquet files. Columns have the files' types; roles come back from the files' own metadata.

    Files are read in the order of their names. A column that one file lacks is null in its rows; one whose type
    differs between files is an error. Null stays null.
    """

    type: ClassVar[str] = "parquet"
    example: ClassVar[str] = '<input name="clicks" type="parquet" path="data/clicks/"/>'

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data.parquet import read_schema

        return read_schema(files, "parquet")

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data.parquet import scan

        return scan(files, "parquet")


class OrcInput(FileInput):
    """Read ORC files, stripe by stripe. Columns have the files' types.

    Files are read in the order of their names. A column that one file lacks is null in its rows; one whose type
    differs between files is an error. Null stays null.
    """

    type: ClassVar[str] = "orc"
    example: ClassVar[str] = '<input name="clicks" type="orc" path="data/clicks/"/>'

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data.parquet import read_schema

        return read_schema(files, "orc")

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data.parquet import scan

        return scan(files, "orc")


class CsvInput(FileInput):
    """Read CSV."""

    type: ClassVar[str] = "csv"
    example: ClassVar[str] = '<input name="clicks" type="csv" path="data/clicks.csv"/>'

    sep: str = Field(",", description="one character between fields; \\t for a tab")
    header_: bool = Field(True, alias="header", description="whether the first line names the columns")

    def header(self, files: list[File]) -> pa.Schema:
        return self._frame(files).collect_schema().to_arrow()

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        return self._frame(files)

    def _frame(self, files: list[File]) -> pl.LazyFrame:
        import polars as pl

        sep = self.sep.replace("\\t", "\t")
        return pl.scan_csv([f.url for f in files], separator=sep, has_header=self.header_, infer_schema_length=10_000)


class JsonInput(FileInput):
    """Read JSON lines."""

    type: ClassVar[str] = "json"
    example: ClassVar[str] = '<input name="clicks" type="json" path="data/clicks.jsonl"/>'

    def header(self, files: list[File]) -> pa.Schema:
        return self.scan(files, None).collect_schema().to_arrow()  # type: ignore[arg-type]

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_ndjson([f.url for f in files], infer_schema_length=10_000)


def _list(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:8])
    return f"its columns are {shown}{', ...' if len(names) > 8 else ''}"
