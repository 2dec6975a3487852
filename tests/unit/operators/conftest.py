"""Running one operator on small frames, through `check` and `run`, as an engine would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Info, Schema
from penstock.engines.local_types import schema_of
from penstock.operators.base import CheckContext, Process, Result


@dataclass
class Context:
    """A `RunContext` that remembers what it was told."""

    infos: Mapping[str, Info] = field(default_factory=dict)
    scratch: Path = field(default_factory=Path)
    flow_dir: Path = field(default_factory=Path)
    step: str = "step"
    threads: int = 2
    values: Mapping[str, str] = field(default_factory=dict)
    node_outputs: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)
    sections: list[Mapping[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def info(self, reference: str) -> Info:
        return self.infos[reference]

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return frame.collect(engine="streaming")

    def batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        yield from self.collect(frame).to_arrow().to_batches()

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        self.messages.append(message)

    def metrics(self, values: Mapping[str, float | int | None]) -> None:
        self.recorded.update(values)

    def show(self, section: Mapping[str, Any]) -> None:
        self.sections.append(section)


@dataclass
class Applied:
    frames: Mapping[str, pl.DataFrame]
    infos: Mapping[str, Info]
    context: Context

    @property
    def frame(self) -> pl.DataFrame:
        return self.frames[""]


Apply = Callable[..., Applied]


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    return lambda operator, infos=None, **frames: applied(tmp_path, operator, frames, infos or {})


def applied(folder: Path, operator: Process, frames: Mapping[str, pl.DataFrame], infos: Mapping[str, Info]) -> Applied:
    """Check with the real schemas, run, and hold `check` to its word: it foretold the names and types that came."""
    arriving: dict[str, pl.LazyFrame] = {}
    schemas: dict[str, Info] = {}
    for name, frame in frames.items():
        reference = name.replace("__", ".")
        arriving[reference] = frame.lazy()
        schemas[reference] = schema_of(frame.lazy(), infos.get(name))
    checked = operator.check(schemas, CheckContext(step="step"))
    assert not checked.failed, checked.faults
    context = Context(schemas, scratch=folder)
    made = operator.run(arriving, context)
    result = made if isinstance(made, Result) else Result(made if isinstance(made, dict) else {"": made})
    collected = {
        port: value if isinstance(value, pl.DataFrame) else value.collect(engine="streaming")
        for port, value in result.outputs.items()
    }
    for port, frame in collected.items():
        foretold = checked.outputs[port]
        assert isinstance(foretold, Schema)
        real = schema_of(frame.lazy())
        assert foretold.names == real.names
        for column in foretold:
            known = real.get(column.name)
            assert known is not None and column.type in (None, known.type), column
    return Applied(collected, checked.outputs, context)


def faults(operator: Process, **frames: Any) -> list[str]:
    """What `check` says of these frames, `CODE message`, in its own order."""
    schemas = {n.replace("__", "."): f if isinstance(f, Schema) else schema_of(f.lazy()) for n, f in frames.items()}
    return [f"{fault.code} {fault.message}" for fault in operator.check(schemas, CheckContext(step="step")).faults]
