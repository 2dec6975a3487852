"""A `RunContext` in a few lines, and rows with a known signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Column, Info, Schema
from penstock.engines.local_types import schema_of
from penstock.errors import Problem, ProblemsFound
from penstock.operators.base import CheckContext, Model, Process, Result


@dataclass
class Context:
    """What the local engine offers, without the engine."""

    scratch: Path
    plans: Path
    infos: dict[str, Info] = field(default_factory=dict)
    threads: int = 2
    flow_dir: Path = Path("/")
    step: str = "step"
    values: Mapping[str, str] = field(default_factory=dict)
    node_outputs: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=lambda: {"run": "r1"})
    told: list[str] = field(default_factory=list)
    metrics_: dict[str, Any] = field(default_factory=dict)
    sections: list[Mapping[str, Any]] = field(default_factory=list)
    batch_rows: int = 1000
    kept: Path = Path("kept")

    def info(self, reference: str) -> Info:
        return self.infos[reference]

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return frame.collect()

    def batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        for part in frame.collect().iter_slices(self.batch_rows):
            yield from part.to_arrow().combine_chunks().to_batches()

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        self.told.append(message)

    def metrics(self, values: Mapping[str, Any]) -> None:
        self.metrics_.update(values)

    def show(self, section: Mapping[str, Any]) -> None:
        self.sections.append(section)


@dataclass
class Runner:
    """Checks and runs one step on frames or models, as the engine does."""

    folder: Path
    count: int = 0

    def __call__(self, operator: Process, inputs: Mapping[str, Any], **options: Any) -> Result:
        self.count += 1
        context = Context(self.folder / f"scratch{self.count}", self.folder / "plans")
        context.scratch.mkdir(parents=True)
        context.kept = self.folder / f"kept{self.count}"
        given: dict[str, Any] = {}
        roles: Mapping[str, str] = options.pop("roles", {})
        plan: str = options.pop("plan", "")
        for key, value in options.items():
            setattr(context, key, value)
        for name, value in inputs.items():
            frame = value.lazy() if isinstance(value, pl.DataFrame) else value
            given[name] = frame
            if isinstance(frame, pl.LazyFrame):
                known = schema_of(frame)
                columns = tuple(Column(c.name, c.type, roles.get(c.name, "")) for c in known)  # type: ignore[arg-type]
                context.infos[name] = Schema(columns, plan)
            elif isinstance(value, Model):
                from penstock.training.bundle import load

                context.infos[name] = load(value.path).info
        checked = operator.check(context.infos, CheckContext())
        if checked.failed:
            raise ProblemsFound(Problem("flow.xml", 1, f.code, f.message, f.hint, f.severity) for f in checked.faults)
        made = operator.run(given, context)
        self.context = context
        return made if isinstance(made, Result) else Result(made if isinstance(made, dict) else {"": made})


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture(scope="session")
def runner() -> type[Runner]:
    return Runner


@pytest.fixture(scope="session")
def rows() -> Callable[..., pl.DataFrame]:
    """Rows whose label depends on a number, a category crossed with it, and keys."""

    def make(count: int = 4000, seed: int = 0) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        age, price = rng.normal(40, 12, count), rng.exponential(20, count)
        city = rng.choice(["paris", "rome", "oslo", "lima"], count)
        user = rng.integers(0, 200, count)
        margin = 0.08 * (age - 40) * np.where(city == "rome", -1, 1) + np.sin(user) * 1.2 - 0.6
        label = (rng.random(count) < 1 / (1 + np.exp(-margin))).astype(np.int64)
        keys = [[int(u) | 1 << 52, int(p // 10) | 2 << 52] for u, p in zip(user, price, strict=True)]
        return pl.DataFrame(
            {
                "age": age, "price": np.where(rng.random(count) < 0.1, np.nan, price), "city": city,
                "user": keys, "label": label, "truth": 1 / (1 + np.exp(-margin)),
            },
            schema_overrides={"user": pl.List(pl.UInt64)},
        )  # fmt: skip

    return make
