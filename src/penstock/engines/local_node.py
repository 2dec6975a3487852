"""One run of a node on the local engine.

Steps are built once, in order. A staged step runs when it is built; everything else waits for the one streaming
execution at the end that writes every output, so a step that two outputs need runs once. `local_graph` says what is
needed and what is spooled, `local_context` executes, `local_count` counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.data.schema import Info, ModelInfo
from penstock.engines.base import Events
from penstock.engines.local_context import LocalContext, NodeRun
from penstock.engines.local_count import Counters
from penstock.engines.local_failure import explained, user_code
from penstock.engines.local_graph import Graph, LocalStep, build, step_of
from penstock.engines.local_outputs import preview_rows, write_outputs
from penstock.engines.local_types import schema_of
from penstock.engines.spec import NodeResult, NodeSpec
from penstock.errors import PenstockError, Problem, ProblemsFound
from penstock.operators.base import CheckContext, Checked, Input, Model, Output, Process, Result

if TYPE_CHECKING:
    import polars as pl

#: Inputs whose own statistics skip rows for a filter; a counter would stand in its way.
_SELF_PRUNING = frozenset({"parquet", "orc"})
#: Steps that give as many rows as they take: they are not counted but inferred.
_SAME_ROWS = frozenset({"select", "derive", "sort", "expect"})


def run_node(spec: NodeSpec, events: Events) -> NodeResult:
    """Build every step, write every output, and count. Outputs are whole when it returns; on an error none changes."""
    started = time.monotonic()
    graph = build(spec)
    counters = Counters(lambda name, rows: events.progress(name, rows=rows))
    run = NodeRun(spec, events, _threads(spec), counters, user_steps=graph.user_steps)
    node = _Node(graph, run)
    for step in graph.steps:
        if not isinstance(step.operator, Output):
            node.build(step)
    if graph.preview:
        rows = preview_rows(node.value(graph.preview), spec.preview.rows if spec.preview else 0, run)
        return NodeResult(status="done", preview=rows, seconds=time.monotonic() - started)
    for step in graph.outputs:
        node.checked(step)
    outputs = write_outputs([(s, node.value(s.references[0]), node.infos_of(s)) for s in graph.outputs], run)
    return NodeResult(
        status="done",
        outputs=outputs,
        rows=_row_counts(graph, counters.rows),
        metrics=run.metrics,
        sections=tuple(run.sections),
        seconds=time.monotonic() - started,
    )


def _threads(spec: NodeSpec) -> int:
    """Polars fixed its pool when it was imported (the worker sets POLARS_MAX_THREADS first); the rest follows it."""
    import polars as pl

    return spec.threads or pl.thread_pool_size()


@dataclass
class _Node:
    """The values and infos built so far, by STEP or STEP.PORT."""

    graph: Graph
    run: NodeRun
    values: dict[str, Any] = field(default_factory=dict)
    infos: dict[str, Info] = field(default_factory=dict)

    def value(self, reference: str) -> Any:
        if reference not in self.values:
            ports = [known for known in self.values if step_of(known) == step_of(reference)]
            hint = f"it has {', '.join(ports)}" if ports else ""
            raise PenstockError(f"nothing comes out of '{reference}'", hint, "RUN101")
        return self.values[reference]

    def infos_of(self, step: LocalStep) -> Mapping[str, Info]:
        return {reference: self.infos[reference] for reference in step.references if reference in self.infos}

    def build(self, step: LocalStep) -> None:
        """Check the step against what really arrives, build it, and spool what later stages share."""
        context = LocalContext.of(self.run, step.name, self.infos_of(step))
        checked = self.checked(step)
        with user_code(step.name, step.spec.cls) if step.spec.cls else explained(f"step '{step.name}'"):
            if isinstance(step.operator, Input):
                made: Any = step.operator.read(context)
            elif isinstance(step.operator, Process):
                made = step.operator.run({r: self.value(r) for r in step.references}, context)
        result = made if isinstance(made, Result) else Result(made if isinstance(made, dict) else {"": made})
        for port in step.operator.ports():
            if port not in result.outputs:
                raise PenstockError(f"step '{step.name}' gave nothing for its port '{port}'", code="RUN103")
            reference = f"{step.name}.{port}" if port else step.name
            self._keep(step, reference, result.outputs[port], result.infos.get(port, checked.outputs.get(port)))

    def _keep(self, step: LocalStep, reference: str, value: Any, info: Info | None) -> None:
        import polars as pl

        if isinstance(value, Model):
            self.values[reference], self.infos[reference] = value, info if info is not None else ModelInfo()
            return
        frame = value.lazy() if isinstance(value, pl.DataFrame) else value
        if not isinstance(frame, pl.LazyFrame):
            said = f"step '{step.name}' gave a value of type {type(value).__name__}, not a frame or a model"
            raise PenstockError(said, "return a Polars LazyFrame, a DataFrame or a Model", "RUN103")
        with explained(f"step '{step.name}'"):
            known = schema_of(frame, info)
        if not self.graph.preview and _countable(step, self.graph):
            frame = self.run.counters.through(reference, frame)
        if step.name in self.graph.spooled:
            frame = self._spool(reference, frame)
        elif not self.graph.preview and self.graph.shared(reference):
            # Polars finds common subplans only where they do not nest; a cache node is always one.
            frame = frame.cache()
        self.values[reference], self.infos[reference] = frame, known

    def _spool(self, reference: str, frame: pl.LazyFrame) -> pl.LazyFrame:
        import polars as pl

        file = Path(self.run.spec.folder) / "spool" / f"{reference}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        sink = frame.sink_parquet(file, compression="lz4", statistics=False, lazy=True)
        self.run.collect_all([sink], f"step '{reference}'")
        return pl.scan_parquet(file)

    def checked(self, step: LocalStep) -> Checked:
        """The operator's own check with real infos. Raises `ProblemsFound` on a fault; warnings go to the log."""
        spec = self.run.spec
        context = CheckContext(
            flow_dir=Path(spec.flow_dir), step=step.name, values=spec.values, written=spec.node_outputs
        )
        with user_code(step.name, step.spec.cls) if step.spec.cls else explained(f"step '{step.name}'"):
            if isinstance(step.operator, Input):
                checked = step.operator.check(context)
            elif isinstance(step.operator, Process | Output):
                checked = step.operator.check(self.infos_of(step), context)
        problems = [
            Problem(
                f.file or spec.flow_file,
                f.line or step.spec.line,
                f.code,
                f.message if f.file else f"{step.spec.kind} '{step.name}': {f.message}",
                f.hint,
                f.severity,
            )
            for f in checked.faults
        ]
        if checked.failed:
            raise ProblemsFound(problems)
        for problem in problems:
            self.run.events.log(str(problem))
        return checked


def _countable(step: LocalStep, graph: Graph) -> bool:
    """Whether a counter after this step costs next to nothing: no filter or limit wants to move through it."""
    readers = {reader.spec.type for reader in graph.readers(step.name)}
    if step.spec.type in _SAME_ROWS or "limit" in readers:
        return False
    if isinstance(step.operator, Input):
        return step.spec.type not in _SELF_PRUNING
    return step.spec.type not in {"join", "union", "sql"} or not readers & {"filter", "sql"}


def _row_counts(graph: Graph, counted: Mapping[str, int]) -> dict[str, int]:
    """What was counted, and what follows from it for steps that keep every row."""
    rows = dict(counted)
    for step in graph.steps:
        if step.spec.type in _SAME_ROWS and step.references and step.references[0] in rows:
            rows.setdefault(step.name, rows[step.references[0]])
    return rows
