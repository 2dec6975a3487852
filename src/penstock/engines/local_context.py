"""What the local engine offers a running operator, and where it executes frames.

`NodeRun` is the state of one node's run (counters, metrics, report sections); `LocalContext` is the narrow view of it
that one step gets: the `RunContext` of `operators.base`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.data.frames import source_of
from penstock.data.schema import Info
from penstock.engines.base import Events
from penstock.engines.local_count import Counters
from penstock.engines.local_failure import explained, told_by_user_code
from penstock.engines.spec import NodeSpec
from penstock.errors import PenstockError, did_you_mean

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

#: Rows a batch that `batches` yields: large enough for a kernel, small enough for a cache of wide rows.
BATCH_ROWS = 65_536


@dataclass
class NodeRun:
    """The state of one node's run, shared by the contexts of its steps."""

    spec: NodeSpec
    events: Events
    threads: int
    counters: Counters
    user_steps: Mapping[str, str] = field(default_factory=dict)  # package.module:Class -> step, of user operators
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    sections: list[Mapping[str, Any]] = field(default_factory=list)

    @contextmanager
    def executing(self, what: str) -> Iterator[None]:
        """Wraps whatever pulls rows for `what`: counts start afresh, and errors leave as a colleague would say them."""
        self.counters.next_execution()
        try:
            with explained(what):
                yield
        except PenstockError:
            raise
        except Exception as error:
            told = told_by_user_code(error, self.user_steps)
            if told is None:
                raise
            raise told from error

    def collect_all(self, frames: Sequence[pl.LazyFrame], what: str) -> list[pl.DataFrame]:
        """One streaming execution of several frames: what they share runs once."""
        import polars as pl

        if not frames:
            return []
        with self.executing(what):
            return pl.collect_all(frames, engine="streaming")


@dataclass
class LocalContext:
    """The `RunContext` of one step; `of` makes it."""

    run: NodeRun
    step: str
    infos: Mapping[str, Info]  # by reference, as the step writes it
    flow_dir: Path
    threads: int
    scratch: Path
    kept: Path
    plans: Path
    values: Mapping[str, str]
    node_outputs: Mapping[str, str]
    lineage: Mapping[str, Any]

    @classmethod
    def of(cls, run: NodeRun, step: str, infos: Mapping[str, Info]) -> LocalContext:
        spec = run.spec
        scratch = Path(spec.folder) / "scratch" / step
        scratch.mkdir(parents=True, exist_ok=True)
        kept = Path(spec.kept or Path(spec.folder) / "kept") / step
        plans = Path(spec.plans or Path(spec.folder) / "plans")
        flow_dir = Path(spec.flow_dir)
        return cls(
            run, step, infos, flow_dir, run.threads, scratch, kept, plans, spec.values, spec.node_outputs, spec.lineage
        )

    def info(self, reference: str) -> Info:
        if reference not in self.infos:
            hint = did_you_mean(reference, self.infos, f"it reads {', '.join(self.infos) or 'nothing'}")
            raise PenstockError(f"step '{self.step}' asked about '{reference}', which it does not read", hint, "RUN101")
        return self.infos[reference]

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return self.run.collect_all([frame], f"step '{self.step}'")[0]

    def batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        import polars as pl

        with self.run.executing(self.step):
            source = source_of(frame)
            if source is not None and not any(type_ == pl.String for type_ in frame.collect_schema().dtypes()):
                # Rows that Polars would hand through as they are; strings it would give another type.
                yield from source.batches(None)
                return
            for part in frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming"):
                yield from part.to_arrow().to_batches()

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        self.run.events.progress(self.step, message, done=done, total=total)

    def metrics(self, values: Mapping[str, float | int | None]) -> None:
        self.run.metrics.setdefault(self.step, {}).update(values)

    def show(self, section: Mapping[str, Any]) -> None:
        self.run.sections.append({"step": self.step, **section})
