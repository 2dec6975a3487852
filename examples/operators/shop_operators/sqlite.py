"""An input and an output: a table of an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.data.schema import Column, Schema
from penstock.errors import did_you_mean
from penstock.operators.base import CheckContext, Checked, Fault, Input, Location, Output, RunContext

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_BATCH_ROWS = 50_000


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def affinity(declared: str) -> str:
    """SQLite's own rule: what a column declared like this holds."""
    declared = declared.upper()
    for found, words in {"int": ["INT"], "str": ["CHAR", "CLOB", "TEXT"], "bytes": ["BLOB"]}.items():
        if any(word in declared for word in words):
            return found
    return "float" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "str"


class SqliteInput(Input):
    """Read a table of an SQLite file, in the order of its rows.

    Integers become int64, reals f64, blobs binary, all else strings. Only the columns that are needed are read.
    """

    type: ClassVar[str] = "sqlite"
    example: ClassVar[str] = '<input name="clicks" type="sqlite" path="shop.sqlite" table="clicks"/>'

    path: Location = Field(description="the SQLite file")
    table: str = Field("data", description="the table to read")

    def check(self, context: CheckContext) -> Checked:
        if self.path in context.promised:
            return Checked({"": Schema.unknown()})
        if not Path(self.path).is_file():
            return Checked({}, (Fault("DATA001", f"there is no file {self.path}"),))
        columns = self._columns()
        if not columns:
            with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
                tables = [
                    row[0] for row in db.execute("select name from sqlite_master where type in ('table', 'view')")
                ]
            hint = did_you_mean(self.table, tables, f"it has {', '.join(tables) or 'none'}")
            return Checked({}, (Fault("DATA001", f"{self.path} has no table '{self.table}'", hint),))
        return Checked({"": Schema(tuple(Column(name, type_) for name, type_ in columns.items()))})

    def paths(self, context: CheckContext) -> tuple[str, ...]:
        return (self.path,)

    def read(self, context: RunContext) -> pl.LazyFrame:
        import polars as pl
        from polars.io.plugins import register_io_source

        kinds = {"int64": pl.Int64(), "double": pl.Float64(), "binary": pl.Binary(), "string": pl.String()}
        schema = {name: kinds[str(type_)] for name, type_ in self._columns().items()}

        def batches(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            names = columns if columns is not None else list(schema)
            listed = ", ".join(quoted(name) for name in names) or "1"
            # Polars may ask for each batch from another of its threads; one at a time, so SQLite does not mind.
            source = f"file:{self.path}?mode=ro"
            with closing(sqlite3.connect(source, uri=True, check_same_thread=False)) as db:
                limit = -1 if rows is None else rows
                cursor = db.execute(f"select {listed} from {quoted(self.table)} order by rowid limit {limit}")
                while found := cursor.fetchmany(batch_size or _BATCH_ROWS):
                    frame = pl.DataFrame(found, schema={n: schema[n] for n in names}, orient="row", strict=False)
                    yield frame if predicate is None else frame.filter(predicate)

        return register_io_source(batches, schema=schema)

    def _columns(self) -> dict[str, pa.DataType]:
        import pyarrow as pa

        types = {"int": pa.int64(), "float": pa.float64(), "bytes": pa.binary(), "str": pa.string()}
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            found = db.execute(f"pragma table_info({quoted(self.table)})").fetchall()
        return {row[1]: types[affinity(row[2])] for row in found}


class SqliteOutput(Output):
    """Write a frame as one table of a new SQLite file. Lists and structs cannot be written; booleans become 0 and 1."""

    type: ClassVar[str] = "sqlite"
    example: ClassVar[str] = '<output name="out" type="sqlite" from="clicks" path="out/shop.sqlite" table="clicks"/>'
    suffix: ClassVar[str | None] = ".sqlite"

    table: str = Field("data", description="the table to write")

    def check(self, inputs: Mapping[str, Any], context: CheckContext) -> Checked:
        import pyarrow as pa

        schema = inputs[self.from_]
        faults = [
            Fault("OPER102", f"SQLite cannot hold column '{c.name}' of type {c.type}", "drop it with select")
            for c in schema
            if c.type is not None and pa.types.is_nested(c.type)
        ]
        return Checked({"": schema}, tuple(faults))

    def twin(self) -> Mapping[str, str]:
        return {"type": "sqlite", "table": self.table}

    def sink(self, value: Any, target: Path, context: RunContext) -> None:
        """Batch by batch into the staging file; the engine puts it in place when it is whole."""
        import pyarrow as pa

        info = context.info(self.from_)
        assert isinstance(info, Schema)
        declared = ", ".join(f"{quoted(c.name)} {_declared(c.type)}" for c in info)
        marks = ", ".join("?" for _ in info.names)
        with closing(sqlite3.connect(target)) as db, db:
            db.execute(f"create table {quoted(self.table)} ({declared})")
            for batch in context.batches(value):
                columns = [
                    column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
                    for column in batch.columns
                ]
                rows = zip(*(column.to_pylist() for column in columns), strict=True)
                db.executemany(f"insert into {quoted(self.table)} values ({marks})", rows)


def _declared(type_: pa.DataType | None) -> str:
    import pyarrow as pa

    if type_ is not None and (pa.types.is_integer(type_) or pa.types.is_boolean(type_)):
        return "INTEGER"
    if type_ is not None and pa.types.is_floating(type_):
        return "REAL"
    return "BLOB" if type_ is not None and pa.types.is_binary(type_) else "TEXT"
