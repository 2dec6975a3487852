"""Writing a node's outputs together, and showing the first rows of a step instead.

Every output gets a staging place; one streaming execution fills them all; only then do the swaps happen, so a run that
fails leaves every old target whole.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.data.schema import Info, Schema
from penstock.data.targets import Target
from penstock.engines.local_context import LocalContext, NodeRun
from penstock.engines.local_failure import explained, user_code
from penstock.engines.local_graph import LocalStep
from penstock.engines.spec import OutputResult
from penstock.operators.base import Model, Output

if TYPE_CHECKING:
    import polars as pl

#: An output step, the value it writes and the infos of what it reads.
Writing = tuple[LocalStep, Any, Mapping[str, Info]]


def write_outputs(writings: Sequence[Writing], run: NodeRun) -> dict[str, OutputResult]:
    """Write all outputs in one execution and put them in place. On any error the old targets stand."""
    targets: dict[str, Target] = {}
    try:
        sinks = [sink for w in writings if (sink := _sink(w, targets, run)) is not None]
        run.collect_all(sinks, " and ".join(f"output '{step.name}'" for step, _, _ in writings))
        return {step.name: _placed(step, infos, targets.get(step.name), run) for step, _, infos in writings}
    except BaseException:
        for target in targets.values():
            with suppress(Exception):  # the first error is the one to tell
                target.abort()
        raise


def _sink(writing: Writing, targets: dict[str, Target], run: NodeRun) -> pl.LazyFrame | None:
    step, value, infos = writing
    if not isinstance(step.operator, Output):
        raise TypeError(f"{step.name} is not an output")
    context = LocalContext.of(run, step.name, infos)
    with explained(f"output '{step.name}'"):
        staging = Path()
        if step.operator.suffix is not None:
            target = _target(step, step.operator, run)
            targets[step.name] = target
            staging = target.staging()
        if not isinstance(value, Model):
            value = run.counters.through(step.name, value)
        with user_code(step.name, step.spec.cls) if step.spec.cls else explained(f"output '{step.name}'"):
            return step.operator.sink(value, staging, context)


def _target(step: LocalStep, output: Output, run: NodeRun) -> Target:
    """Where it ends up: its path, else a place of its own in the run store."""
    if not output.path:
        place = Path(run.spec.folder) / "outputs" / f"{step.name}{output.suffix}"
        output = output.model_copy(update={"path": str(place)})
    return Target(output.path, output.folder(), output.mode, run=run.spec.run, node=run.spec.node, output=step.name)


def _placed(step: LocalStep, infos: Mapping[str, Info], target: Target | None, run: NodeRun) -> OutputResult:
    info = infos.get(step.references[0])
    columns = {c.name: str(c.type) for c in info} if isinstance(info, Schema) else {}
    rows = run.counters.rows.get(step.name, 0) if isinstance(info, Schema) else None
    if target is None:
        return OutputResult(path="", rows=rows, columns=columns)
    with explained(f"output '{step.name}'"):
        written = target.commit()
    return OutputResult(
        path=str(written.path),
        rows=rows,
        size_bytes=written.size_bytes,
        content=written.content_hash,
        columns=columns,
    )


def preview_rows(value: Any, rows: int, run: NodeRun) -> tuple[Mapping[str, Any], ...]:
    """The first rows of a frame as JSON values; a model shows where its bundle lies."""
    if isinstance(value, Model):
        return ({"model": str(value.path)},)
    step = run.spec.preview.step if run.spec.preview else ""
    [frame] = run.collect_all([value.head(rows)], f"step '{step}'")
    return tuple({name: _json(v) for name, v in row.items()} for row in frame.iter_rows(named=True))


def _json(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinities by name, times in ISO 8601, bytes in base64."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    return value
