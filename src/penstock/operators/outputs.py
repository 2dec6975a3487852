"""The outputs that write files, each the twin of an input, and `print`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from penstock.data import libsvm_rows
from penstock.data.csv_files import separator, spelled
from penstock.data.holding import WITHOUT_ROLES, read_back
from penstock.data.schema import ROLES_KEY, Column, Info, Schema
from penstock.data.text_sinks import SUFFIXES, Compression, one_line_each, sink_csv, sink_json, sink_lines
from penstock.errors import DataError, did_you_mean
from penstock.operators.base import CheckContext, Checked, ColumnName, Fault, Names, Output, RunContext

if TYPE_CHECKING:
    import polars as pl

_INSTEAD = {
    "csv": 'write type="json" or "parquet", or turn it into text with `derive`',
    "json": 'write type="parquet"',
    "orc": 'write type="parquet", or cast it with `derive`',
    "text": "select one string column",
}


class FileOutput(Output):
    """What all of them share: one file by suffix, else a folder; partitions; the twin that reads it back."""

    partition_by: Names = Field((), description="columns that become name=value folders; the path is then a folder")

    def folder(self) -> bool:
        """One file where the path ends in the format's suffix or there is no path; else a folder."""
        return bool(self.partition_by) or (bool(self.path) and super().folder())

    def twin(self) -> Mapping[str, str]:
        return {"type": self.type}

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        """What the format cannot hold, and what it will lose; the result is what reading back gives."""
        info = inputs[self.from_]
        if not isinstance(info, Schema):
            hint = 'write it with type="model"'
            return Checked({}, (Fault("DATA019", f"'{self.from_}' is a model, and {self.type} holds rows", hint),))
        faults = [*self._path_faults(), *self._partition_faults(info)]
        body = info.with_columns(c for c in info if c.name not in self.partition_by)
        schema, refused = read_back(self.type, body)
        for column in refused:
            said = f"column '{column.name}' is {column.type}, which {self.type} cannot hold"
            faults.append(Fault("DATA019", said, _INSTEAD.get(self.type, "")))
        if self.type in WITHOUT_ROLES and any(c.role in ("slot", "dense") for c in info) and self.type != "libsvm":
            said = f"{self.type} does not store what `features` said of the columns: they come back as plain columns"
            faults.append(Fault("DATA020", said, 'write type="parquet" to keep the roles', "warning"))
        folders = (Column(name) for name in self.partition_by)
        return Checked({"": schema.with_columns([*schema, *folders])}, tuple(faults))

    def _path_faults(self) -> list[Fault]:
        if self.mode == "append" and not self.folder():
            hint = "leave the suffix away: a folder takes one more file a run"
            return [
                Fault("DATA013", f'mode="append" needs a folder, and {self.path or "this output"} is one file', hint)
            ]
        if self.partition_by and self.path and super().folder() is False:
            hint = "leave the suffix away"
            return [Fault("DATA013", f"partition_by writes a folder, and {self.path} is the name of one file", hint)]
        return []

    def _partition_faults(self, info: Schema) -> list[Fault]:
        if info.open:
            return []
        unknown = [name for name in self.partition_by if name not in info]
        faults = [
            Fault("DATA006", f"partition_by names '{n}', which is no column here", did_you_mean(n, info.names))
            for n in unknown
        ]
        if self.partition_by and not unknown and len(info.columns) == len(self.partition_by):
            said = "partition_by names every column and leaves nothing to write"
            faults.append(Fault("DATA006", said, "leave one column out of it"))
        return faults


class ParquetOutput(FileOutput):
    """Write Parquet. Types, nulls and the columns' roles (slot, dense, kept, label) are kept, the roles under the
    file's key `penstock.columns`. One file where the path ends in .parquet, else a folder.
    """

    type: ClassVar[str] = "parquet"
    example: ClassVar[str] = '<output name="train" type="parquet" from="kept" path="out/train"/>'
    suffix: ClassVar[str | None] = ".parquet"

    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = Field(
        "zstd", description="how pages are compressed"
    )

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        from penstock.data.text_sinks import place

        info = context.info(self.from_)
        roles = info.roles_json() if isinstance(info, Schema) else ""
        sink: pl.LazyFrame = value.sink_parquet(
            place(target, ".parquet", self.partition_by),
            compression="uncompressed" if self.compression == "none" else self.compression,
            metadata={ROLES_KEY: roles} if roles else None,
            mkdir=bool(self.partition_by),
            lazy=True,
        )
        return sink


class OrcOutput(FileOutput):
    """Write ORC. Types and nulls are kept; unsigned integers become signed ones, timestamps nanoseconds.

    ORC is written in an execution of its own: what it shares with other outputs of the node is computed again.
    One file where the path ends in .orc, else a folder.
    """

    type: ClassVar[str] = "orc"
    example: ClassVar[str] = '<output name="train" type="orc" from="kept" path="out/train.orc"/>'
    suffix: ClassVar[str | None] = ".orc"

    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = Field(
        "zstd", description="how stripes are compressed"
    )

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        from penstock.data.orc import write_orc

        write_orc(context.batches(value), value.collect_schema(), target, self.partition_by, self.compression)
        return None


class TextFileOutput(FileOutput):
    """What the formats of text share: gzip and zstd, asked for or told by the path's suffix."""

    compression: Literal["auto", "none", "gzip", "zstd"] = Field(
        "auto", description="auto: by the path's suffix (.gz, .zst), else none"
    )
    #: Suffixes of a single file, without the compression's.
    plain_suffixes: ClassVar[tuple[str, ...]] = ()

    @field_validator("compression", mode="before")
    @classmethod
    def _short_names(cls, value: object) -> object:
        return {"gz": "gzip", "zst": "zstd"}.get(value, value) if isinstance(value, str) else value

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        return tuple(s + c for s in cls.plain_suffixes for c in ("", ".gz", ".zst"))

    def compressed(self) -> Compression:
        if self.compression != "auto":
            return self.compression
        path = self.path.lower()
        return "gzip" if path.endswith(".gz") else "zstd" if path.endswith(".zst") else "none"

    def part_suffix(self) -> str:
        return f"{self.plain_suffixes[0]}{SUFFIXES[self.compressed()]}"

    def _path_faults(self) -> list[Fault]:
        faults = super()._path_faults()
        said = self.compressed()
        path = self.path.lower()
        told = "gzip" if path.endswith(".gz") else "zstd" if path.endswith(".zst") else "none"
        if not self.folder() and said != told and not faults and self.path:
            hint = f"readers go by the suffix: end the path in {self.part_suffix()}"
            return [Fault("DATA013", f'compression="{said}" does not go with the name {Path(self.path).name}', hint)]
        return faults


class CsvOutput(TextFileOutput):
    """Write CSV. Null is an empty field, the empty string `""`; strings that look like a number, a boolean or a
    date are quoted, so that they come back as strings. Timestamps are written in UTC, without a zone,
    to the microsecond.

    NaN and inf are written as `NaN` and `inf`. Lists, structs and bytes cannot be written. One file where the path ends
    in .csv or .tsv (and .gz or .zst), else a folder.
    """

    type: ClassVar[str] = "csv"
    example: ClassVar[str] = '<output name="train" type="csv" from="kept" path="out/train.csv.gz"/>'
    suffix: ClassVar[str | None] = ".csv"
    plain_suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".txt")

    sep: str = Field(",", description="one character between fields; \\t for a tab")
    header: bool = Field(True, description="whether the first line names the columns")

    @field_validator("sep")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = separator(value)
        if value.isalnum() or value in '"+-.:_ ':
            raise ValueError(f"'{value}' stands inside numbers, dates and words")
        return value

    def twin(self) -> Mapping[str, str]:
        return {"type": "csv", "sep": spelled(self.sep), "header": str(self.header).lower()}

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        return sink_csv(value, target, self.part_suffix(), self.compressed(), self.partition_by, self.sep, self.header)


class JsonOutput(TextFileOutput):
    """Write JSON lines: one object a line. Lists and structs are kept; dates and timestamps become ISO text.

    Null is `null`; JSON has no NaN and no infinity, they become null too. Bytes cannot be written. One file where the
    path ends in .json, .jsonl or .ndjson (and .gz or .zst), else a folder.
    """

    type: ClassVar[str] = "json"
    example: ClassVar[str] = '<output name="train" type="json" from="kept" path="out/train.jsonl"/>'
    suffix: ClassVar[str | None] = ".json"
    plain_suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".ndjson")

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        return sink_json(value, target, self.part_suffix(), self.compressed(), self.partition_by)


class TextOutput(TextFileOutput):
    """Write the one string column of the frame, a line a row. Null becomes an empty line.

    A value that holds a line break is an error. One file where the path ends in .txt, .text or .log (and .gz or
    .zst), else a folder.
    """

    type: ClassVar[str] = "text"
    example: ClassVar[str] = '<output name="lines" type="text" from="kept" path="out/lines.txt"/>'
    suffix: ClassVar[str | None] = ".txt"
    plain_suffixes: ClassVar[tuple[str, ...]] = (".txt", ".text", ".log")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        checked = super().check(inputs, context)
        info = inputs[self.from_]
        if checked.failed or not isinstance(info, Schema) or info.open:
            return checked
        import pyarrow as pa

        columns = [c for c in info if c.name not in self.partition_by]
        if len(columns) == 1 and (columns[0].type is None or pa.types.is_string(columns[0].type)):
            found = Schema((Column("value", pa.string()), *(Column(name) for name in self.partition_by)))
            return Checked({"": found}, checked.faults)
        names = ", ".join(f"{c.name} ({c.type})" for c in columns[:6])
        fault = Fault(
            "DATA019", f"text holds one string column, and here are {names}", 'keep one: <process type="select" .../>'
        )
        return Checked(checked.outputs, (*checked.faults, fault))

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        names = [name for name in value.collect_schema().names() if name not in self.partition_by]
        checked = value.map_batches(one_line_each(names[0], context.step), streamable=True)
        return sink_lines(checked, target, self.part_suffix(), self.compressed(), self.partition_by)


class LibsvmOutput(TextFileOutput):
    """Write libsvm: the label, then raw keys with base 0, sorted, the values of repeated keys summed.

    The keys are `keys` (one or several list columns, with `weights`), else the slots by role with their weights, else
    columns `keys` and `weights` or `indices` and `values`; a weight is 1 where there is none. A null key or weight
    drops its pair; a null label is an error. `qid` is written where there is such a column. One file where the path
    ends in .libsvm, .svm or .txt (and .gz or .zst), else a folder.
    """

    type: ClassVar[str] = "libsvm"
    example: ClassVar[str] = '<output name="train" type="libsvm" from="mapped" path="out/train.libsvm" label="label"/>'
    suffix: ClassVar[str | None] = ".libsvm"
    plain_suffixes: ClassVar[tuple[str, ...]] = (".libsvm", ".svm", ".txt")

    label: ColumnName = Field("label", description="the column that is the label")
    keys: Names = Field((), description="list columns of keys (default: the slots, else `keys`, else `indices`)")
    weights: ColumnName = Field("", description="the list column of weights that goes with `keys`")

    def twin(self) -> Mapping[str, str]:
        return {"type": "libsvm", "base": "0"}

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        from penstock.data.line_files import LIBSVM_SCHEMA

        info = inputs[self.from_]
        back = Schema.from_arrow(LIBSVM_SCHEMA)
        if not isinstance(info, Schema):
            return super().check(inputs, context)
        faults = [*self._path_faults(), *self._partition_faults(info)]
        try:
            rows = libsvm_rows.layout(info, self.label, self.keys, self.weights)
        except DataError as error:
            return Checked({"": back}, (*faults, Fault(error.code, error.message, error.hint)))
        faults += _list_faults(info, rows)
        left = [c.name for c in info if c.name not in libsvm_rows.used(rows) and c.name not in self.partition_by]
        if left and not info.open:
            said = f"libsvm holds a label and keys: {', '.join(left[:6])} will not be written"
            faults.append(Fault("DATA020", said, 'write type="parquet" to keep them', "warning"))
        return Checked({"": back.with_columns([*back, *(Column(name) for name in self.partition_by)])}, tuple(faults))

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        info = context.info(self.from_)
        if not isinstance(info, Schema):
            raise TypeError(f"{self.from_} is no frame")
        rows = libsvm_rows.layout(info, self.label, self.keys, self.weights)
        return libsvm_rows.sink(
            value, rows, context.step, target, self.part_suffix(), self.compressed(), self.partition_by
        )


def _list_faults(info: Schema, rows: libsvm_rows.Layout) -> list[Fault]:
    import pyarrow.types as t

    faults = []
    for keys, weights in rows.slots:
        for name, fits, what in ((keys, t.is_integer, "integers"), (weights, _is_number, "numbers")):
            column = info.get(name) if name else None
            if column is None or column.type is None:
                continue
            if not (t.is_list(column.type) or t.is_large_list(column.type)) or not fits(column.type.value_type):
                said = f"column '{name}' is {column.type}, and libsvm needs a list of {what} there"
                faults.append(Fault("DATA019", said, "map the rows with `features` first"))
    label = info.get(rows.label)
    if label is not None and label.type is not None and not (_is_number(label.type) or t.is_boolean(label.type)):
        faults.append(Fault("DATA019", f"the label '{rows.label}' is {label.type}, not a number", ""))
    return faults


def _is_number(type_: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_integer(type_) or t.is_floating(type_))


class PrintOutput(Output):
    """Show the first rows in the node's log and in the run's report. Writes no file; reads no more than it shows."""

    type: ClassVar[str] = "print"
    example: ClassVar[str] = '<output name="look" type="print" from="kept" rows="10"/>'
    suffix: ClassVar[str | None] = None

    rows: int = Field(10, ge=1, le=1000, description="how many rows to show")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        return Checked({})

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        import polars as pl

        shown = context.collect(value.head(self.rows))
        with pl.Config(
            tbl_rows=self.rows, tbl_cols=-1, tbl_width_chars=160, fmt_str_lengths=60, tbl_hide_dataframe_shape=True
        ):
            print(f"first {shown.height} row(s) of '{self.from_}':\n{shown}", flush=True)  # a node's stdout is its log
        rows = [[_cell(value) for value in row] for row in shown.iter_rows()]
        context.show(
            {
                "kind": "table",
                "title": f"{context.step}: first {shown.height} row(s) of {self.from_}",
                "columns": shown.columns,
                "rows": rows,
            }
        )
        return None


def _cell(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
