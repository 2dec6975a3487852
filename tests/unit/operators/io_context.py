"""Write a frame through an output and a target, read it back through the output's twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from penstock.data.arrow_types import plain_values
from penstock.data.schema import Column, Info, Schema
from penstock.data.targets import Target, Written
from penstock.operators import CheckContext, Input, Output, operator


@dataclass
class Context:
    """A `RunContext` with nothing behind it; remembers what it was told and shown."""

    flow_dir: Path = Path("/")
    step: str = "step"
    threads: int = 2
    scratch: Path = Path("/tmp")
    values: Mapping[str, str] = field(default_factory=dict)
    node_outputs: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    schema: Schema = field(default_factory=Schema)
    told: list[str] = field(default_factory=list)
    shown: list[Mapping[str, Any]] = field(default_factory=list)

    def info(self, reference: str) -> Info:
        return self.schema

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return frame.collect(engine="streaming")

    def batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        yield from frame.collect(engine="streaming").to_arrow().to_batches()

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        self.told.append(message)

    def metrics(self, values: Mapping[str, float | int | None]) -> None: ...

    def show(self, section: Mapping[str, Any]) -> None:
        self.shown.append(section)


def schema_of(frame: pl.DataFrame, **roles: str) -> Schema:
    types = {f.name: plain_values(f.type) for f in frame.to_arrow().schema}
    return Schema(tuple(Column(name, types[name], roles.get(name, "")) for name in frame.columns))  # type: ignore[arg-type]


def write(
    type_: str, path: Path | str, frame: pl.DataFrame, roles: Mapping[str, str] | None = None, **attrs: str
) -> Written:
    made = operator("output", type_).model_validate({"from": "x", "path": str(path), **attrs})
    assert isinstance(made, Output)
    schema = schema_of(frame, **(roles or {}))
    checked = made.check({"x": schema}, CheckContext())
    assert not checked.failed, checked.faults
    target = Target(made.path, made.folder(), made.mode, run="run", node="node", output="out")
    sink = made.sink(frame.lazy(), target.staging(), Context(schema=schema))
    if sink is not None:
        pl.collect_all([sink], engine="streaming")
    return target.commit()


def reader(type_: str, path: Path | str, **attrs: str) -> Input:
    made = operator("input", type_).model_validate({"path": str(path), **attrs})
    assert isinstance(made, Input)
    return made


def read(type_: str, path: Path | str, context: Context | None = None, **attrs: str) -> pl.DataFrame:
    made = reader(type_, path, **attrs)
    checked = made.check(CheckContext())
    assert not checked.failed, checked.faults
    frame = made.read(context or Context())
    assert isinstance(frame, pl.LazyFrame)
    known = checked.outputs[""]
    assert isinstance(known, Schema)
    assert list(known.names) == frame.collect_schema().names()
    return frame.collect(engine="streaming")
