"""The inputs that read files: Parquet, ORC, CSV, JSON lines, text, libsvm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from penstock.data.arrow_types import plain_values
from penstock.data.csv_files import Dialect, expand_names, parse_types, separator, unknown_types
from penstock.data.partitions import partition_fields
from penstock.data.paths import File, resolve, split_locations
from penstock.data.schema import ROLES_KEY, Schema
from penstock.data.stores import is_remote, local_path, storing
from penstock.data.text_files import Rejecting
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
        locations = split_locations(self.path, context.flow_dir)
        there = [one for one in locations if not _promised(one, context)]
        if there != locations:
            # Some of it an earlier node still has to write; what is said to be there already must be.
            return Checked({"": Schema.unknown()}, tuple(self._missing(there, context)))
        try:
            schema = self.header(self.found(context.flow_dir))
        except DataError as error:
            return Checked({"": Schema.unknown()}, (Fault(error.code, error.message, error.hint),))
        known = _known(schema.remove_metadata(), (schema.metadata or {}).get(ROLES_KEY.encode()))
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
        frame = self.scan(self.found(context.flow_dir), context)
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

    def _missing(self, locations: list[str], context: CheckContext) -> Iterator[Fault]:
        for location in locations:
            try:
                resolve([location], base=context.flow_dir, missing="error")
            except DataError as error:
                if self.missing == "error" or error.code != "DATA001":
                    yield Fault(error.code, error.message, error.hint)


@lru_cache(64)
def _known(schema: pa.Schema, roles: bytes | None) -> Schema:
    """What a header says, as the checks see it. A flow of many nodes reads the same file many times."""
    metadata = None if roles is None else {ROLES_KEY: roles}
    return Schema.from_arrow(pa.schema([f.with_type(plain_values(f.type)) for f in schema], metadata))


def _promised(location: str, context: CheckContext) -> bool:
    """Whether an earlier node writes this path, or a folder that it lies in."""
    if not context.promised:
        return False
    if is_remote(location):
        return any(location == p or location.startswith(p.rstrip("/") + "/") for p in context.promised)
    place = str(context.flow_dir / local_path(location))
    while place and place not in context.promised:
        place = place.rpartition("/")[0]
    return bool(place) or "/" in context.promised


class ColumnarInput(FileInput):
    """What Parquet and ORC share: the files' footers say what they hold."""

    format: ClassVar[Literal["parquet", "orc"]]

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data.parquet import read_schema

        return read_schema(files, self.format)

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data.parquet import scan

        return scan(files, self.format)


class ParquetInput(ColumnarInput):
    """Read Parquet files. Columns have the files' types; roles come back from the files' own metadata.

    Files are read in the order of their names. A column that one file lacks is null in its rows; one whose type
    differs between files is an error. Null stays null.
    """

    type: ClassVar[str] = "parquet"
    example: ClassVar[str] = '<input name="clicks" type="parquet" path="data/clicks/"/>'
    format: ClassVar[Literal["parquet", "orc"]] = "parquet"


class OrcInput(ColumnarInput):
    """Read ORC files, stripe by stripe. Columns have the files' types.

    Files are read in the order of their names. A column that one file lacks is null in its rows; one whose type
    differs between files is an error. Null stays null.
    """

    type: ClassVar[str] = "orc"
    example: ClassVar[str] = '<input name="clicks" type="orc" path="data/clicks/"/>'
    format: ClassVar[Literal["parquet", "orc"]] = "orc"


class TextFileInput(FileInput):
    """What the formats of text share: encodings, and rows that may be bad."""

    encoding: Literal["utf-8", "gbk", "latin-1"] = Field(
        "utf-8", description="how the bytes of the files spell characters"
    )

    def rejecting(self, context: RunContext) -> Rejecting:
        return Rejecting(self.on_error, self.errors, context.progress)


class CsvInput(TextFileInput):
    """Read CSV. A column is int (i64), float (f64), bool, date, timestamp (microseconds, UTC where no zone is written)
    or str: what `types` does not say is inferred from the first 10,000 rows of the first file.

    Inference takes the narrowest type that all of them have; quoted fields, numbers with a leading zero or plus sign
    and integers beyond 64 bits are str, mixtures and empty columns too. An unquoted empty field is null, `""` the empty
    string; in columns that are not str a blank or quoted-empty field is null as well. Lines end in LF or CRLF; blank
    lines are skipped unless there is only one column; a byte-order mark is dropped. Every file has its own header:
    columns are found by name, one that a later file lacks is null in its rows.
    A bad row (a field that is not of its column's type, too many or too few fields, a broken quote, bytes that are not
    of the encoding) is an error that names file, line and column, unless `on_error` says otherwise. With "keep" a
    field that is missing is null and one too many is cut; a row with a broken quote cannot be kept.
    """

    type: ClassVar[str] = "csv"
    example: ClassVar[str] = (
        '<input name="clicks" type="csv" path="data/clicks.csv.gz" types="user_id:str price:float"/>'
    )

    sep: str = Field(",", description="one character between fields; \\t for a tab, \\x01 for a control character")
    header_: bool = Field(True, alias="header", description="whether the first line of each file is a header")
    names: str = Field("", description='names of the columns, in place of a header\'s: "label I1..I13 C1..C26"')
    quote: str = Field('"', description="the character around fields that hold separators; empty: quotes are ordinary")
    null: Names = Field((), description="texts that mean null when they stand unquoted, besides the empty field")
    types: str = Field("", description='types of columns, by name or glob: "label:int I*:float C*:str"')

    @field_validator("sep")
    @classmethod
    def _one_character(cls, value: str) -> str:
        return separator(value)

    @field_validator("quote")
    @classmethod
    def _one_or_none(cls, value: str) -> str:
        if len(value) > 1 or (value and (ord(value) > 127 or value in "\r\n")):
            raise ValueError("it is one ASCII character, or empty")
        return value

    @field_validator("names")
    @classmethod
    def _ranges(cls, value: str) -> str:
        expand_names(value)
        return value

    @field_validator("types")
    @classmethod
    def _known_types(cls, value: str) -> str:
        parse_types(value)
        return value

    @model_validator(mode="after")
    def _two_characters(self) -> CsvInput:
        if self.sep == self.quote:
            raise ValueError("sep and quote are the same character")
        return self

    def check(self, context: CheckContext) -> Checked:
        checked = super().check(context)
        schema = checked.outputs[""]
        if checked.failed or not isinstance(schema, Schema) or schema.open or self.columns:
            return checked
        return Checked(checked.outputs, (*checked.faults, *_types_for_nothing(schema, self.types)))

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data import csv_files

        return _with_folders(
            csv_files.arrow_schema(csv_files.columns(files, self.dialect(), parse_types(self.types))), files
        )

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data import csv_files

        types = parse_types(self.types)
        return csv_files.scan(files, self.dialect(), types, self.rejecting(context), context.threads)

    def dialect(self) -> Dialect:
        names = expand_names(self.names) if self.names else None
        return Dialect(self.sep, self.quote, self.header_, self.encoding, self.null, names)


class JsonInput(TextFileInput):
    """Read JSON lines: one object a line. Columns are i64, f64, bool, str, lists and structs of them, inferred from
    the first 10,000 rows of the first file; `types` has the last word and may name date and timestamp.

    A missing key and `null` are null. Integers widen to floats within those rows; of other types in one column the one
    seen first stays. Blank lines are skipped; a key that those rows never had is passed over. A file without rows has
    the columns that `types` and `columns` name (str where no type is given) and a warning; without them it is an error.
    A bad row (not one JSON object, a value of another type) is an error that names file, line and key, unless
    `on_error` says otherwise.
    """

    type: ClassVar[str] = "json"
    example: ClassVar[str] = '<input name="clicks" type="json" path="data/clicks.jsonl" types="ts:timestamp"/>'

    types: str = Field("", description='types of columns, by name or glob: "ts:timestamp id:str"')

    @field_validator("types")
    @classmethod
    def _known_types(cls, value: str) -> str:
        parse_types(value)
        return value

    def check(self, context: CheckContext) -> Checked:
        from penstock.data.line_files import without_objects

        checked = super().check(context)
        schema = checked.outputs[""]
        if checked.failed or not isinstance(schema, Schema) or schema.open:
            return checked
        if not without_objects(self.found(context.flow_dir), self.encoding):
            return checked
        said = f"{self.path} holds no rows: its columns are only those that types and columns name"
        hint = "a column without a type is str; types says what it would be if there were rows"
        return Checked(checked.outputs, (*checked.faults, Fault("DATA009", said, hint, "warning")))

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data.line_files import json_schema

        return _with_folders(json_schema(files, self.encoding, parse_types(self.types), self.columns), files)

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data.line_files import scan_json

        types = parse_types(self.types)
        return scan_json(files, self.encoding, types, self.columns, self.rejecting(context), context.threads)


class TextInput(TextFileInput):
    """Read lines of text as one column, `value` (str). An empty line is the empty string, never null.

    A line whose bytes are not of the encoding is an error, unless `on_error` says otherwise.
    """

    type: ClassVar[str] = "text"
    example: ClassVar[str] = '<input name="lines" type="text" path="logs/*.log.gz"/>'

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data.line_files import TEXT_SCHEMA

        _readable(files)
        return _with_folders(TEXT_SCHEMA, files)

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data.line_files import scan_text

        return scan_text(files, self.encoding, self.rejecting(context), context.threads)


class LibsvmInput(FileInput):
    """Read libsvm files: `label` f32, `indices` list<i64>, `values` list<f32>, `qid` i64 (null where none is given).

    Indices are the file's less `base`, in the file's order; repeated ones stay. 1e9 dimensions and more are ordinary:
    rows are never as wide as the data. Comments after `#` and blank lines are skipped.
    A bad row (no number, an index below the base) is an error that names file and line, unless `on_error` says
    otherwise.
    """

    type: ClassVar[str] = "libsvm"
    example: ClassVar[str] = '<input name="a9a" type="libsvm" path="data/a9a"/>'

    base: Literal[0, 1] = Field(1, description="what the first index of a file is")

    @field_validator("base", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value in ("0", "1") else value

    def header(self, files: list[File]) -> pa.Schema:
        from penstock.data.line_files import LIBSVM_SCHEMA

        _readable(files)
        return _with_folders(LIBSVM_SCHEMA, files)

    def scan(self, files: list[File], context: RunContext) -> pl.LazyFrame:
        from penstock.data.line_files import scan_libsvm

        rejecting = Rejecting(self.on_error, self.errors, context.progress)
        return scan_libsvm(files, self.base, rejecting, context.threads)


def _with_folders(schema: pa.Schema, files: list[File]) -> pa.Schema:
    """The files' columns, then those of their name=value folders."""
    for field in partition_fields(files):
        index = schema.get_field_index(field.name)
        schema = schema.append(field) if index < 0 else schema.set(index, field)
    return schema


def _readable(files: list[File]) -> None:
    """Raise `DataError` now for a file that the run could not open."""
    for file in files:
        if not file.remote:
            with storing(file.url, "read"), Path(file.url).open("rb"):
                pass


def _types_for_nothing(schema: Schema, types: str) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            "DATA017",
            f"types speaks of '{name}', but there is no such column",
            did_you_mean(name, schema.names, _list(schema.names)),
        )
        for name in unknown_types(schema.names, parse_types(types))
    )


def _list(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:8])
    return f"its columns are {shown}{', ...' if len(names) > 8 else ''}"
