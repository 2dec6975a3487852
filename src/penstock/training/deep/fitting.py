"""From frames to a scorer in a folder: a deep model built, trained, kept at its best, and exported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.data.targets import sync
from penstock.operators.base import RunContext
from penstock.training import online_fitting
from penstock.training.checkpoints import Checkpoints
from penstock.training.deep.building import Built, Parameters, build
from penstock.training.deep.export import to_onnx
from penstock.training.deep.reading import Reading
from penstock.training.deep.scorer import DENSE, ROWS, TRAINING, WEIGHTS, DeepScorer
from penstock.training.deep.state import pack, unpack
from penstock.training.deep.trainer import Scalars, Settings, Trainer
from penstock.training.deep.warm import State, go_on
from penstock.training.faults import InputError
from penstock.training.inputs import Layout
from penstock.training.matrices import Encoder, keys_of
from penstock.training.online import MOMENT_ROWS, Feed
from penstock.training.scorers import Fit
from penstock.training.snapshots import write_snapshot


@dataclass(frozen=True)
class Task(online_fitting.Task):
    """And how it is read. `start_folder`: where the bundle `start` lies."""

    time: str
    start_folder: Path | None
    batch: int
    shuffle: int
    anew: bool = False
    state: State = "keep"


def fit(
    task: Task,
    parameters: Parameters,
    settings: Settings,
    context: RunContext,
    kept: Path,
    log: Callable[[int], Scalars] | None = None,
) -> tuple[Encoder, Fit]:
    """Train, resuming from what an interrupted run left in `kept`. Raises what `Trainer.fit` raises, and `InputError`
    for inputs that no such model can be built of."""
    reading = _reading(task, parameters, context)
    encoder = reading.encoder
    try:
        built = build(encoder.field_names, len(encoder.number_names), task.mapped, parameters)
    except ValueError as error:
        raise InputError(str(error), "", "TRAIN043") from None
    sections: list[Mapping[str, Any]] = []
    plan = task.plan.fingerprint if task.plan else ""
    cuts = kept / "cuts"
    resuming = any(cuts.glob("*.cut"))  # the rows of `start` are in it by now
    checkpoints = Checkpoints(cuts, built.inputs.tables, plan=plan)
    if task.start is not None and task.start_folder is not None:
        told = go_on(
            task.start, task.start_folder, built, reading, task.plan, parameters,
            anew=task.anew, state=task.state, rows=not resuming,
        )  # fmt: skip
        sections.append(told)
    trainer = Trainer(
        built.model, built.inputs.tables, built.optimizer, settings, log=log,
        keep=lambda epoch, before: _keep(kept, epoch, before, built, plan),
        tell=lambda said, rows: context.progress(said, rows),
    )  # fmt: skip
    outcome = trainer.fit(reading, _valid(task, reading), checkpoints)
    best = _best(kept, outcome.epochs)
    context.progress("exporting the dense part")
    built.model.load_state_dict(unpack((best / TRAINING / WEIGHTS).read_bytes()))
    graph, feeds = to_onnx(built.model, built.inputs)
    (best / DENSE).write_bytes(graph)
    scorer = DeepScorer(
        best, [feed.as_dict() for feed in feeds], encoder.field_names, encoder.number_names, reading.means,
        reading.scales, [table.document() for table in built.inputs.tables.tables], built.inputs.tables.slots,
        parameters.model,
    )  # fmt: skip
    numbers = {**outcome.numbers, "keys": sum(built.inputs.tables.rows.values()), "reading_waited": outcome.waiting}
    return encoder, Fit(scorer, numbers, sections)


def _reading(task: Task, parameters: Parameters, context: RunContext) -> Reading:
    names = [name for name in (*task.layout.columns, task.label) if name]
    first = list(context.batches(task.frame.select(names).head(MOMENT_ROWS)))
    feed = Feed.fitted(task.layout, first)
    places = _longest(first, task.layout) if task.layout.positions else 0
    return Reading(
        task.frame, context.batches, Encoder(task.layout, feed.widths, {}, places), feed.means, feed.scales,
        task.label, task.weight, task.time, task.batch, task.shuffle, parameters.seed,
    )  # fmt: skip


def _valid(task: Task, reading: Reading) -> Reading | None:
    if task.valid is None:
        return None
    return Reading(
        task.valid, reading.execute, reading.encoder, reading.means, reading.scales, task.label, task.weight, "",
        reading.batch,
    )  # fmt: skip


def _longest(first: Iterable[pa.RecordBatch], layout: Layout) -> int:
    lengths = (keys_of(batch, *layout.slots[0]).offsets for batch in first)
    return max((int((each[1:] - each[:-1]).max(initial=0)) for each in lengths), default=0)


def _best(kept: Path, epoch: int) -> Path:
    return kept / f"best-{epoch}"


def _keep(kept: Path, epoch: int, before: int, built: Built, plan: str) -> None:
    """The model as it is, whole or not at all, beside that of the epoch `before`: the newest checkpoint still says that
    this one is the best, so a run killed now goes on with it, and may judge otherwise the second time."""
    best = _best(kept, epoch)
    staged = best.with_name(f"{best.name}.staged")
    for folder in kept.glob("best-*"):
        if folder != _best(kept, before):
            shutil.rmtree(folder)
    staged.mkdir(parents=True)
    tables = built.inputs.tables
    write_snapshot(tables, staged / ROWS, plan=plan)
    Checkpoints(staged / TRAINING, tables, plan=plan).save({}, full=True)
    (staged / TRAINING / WEIGHTS).write_bytes(pack(built.model.state_dict()))
    sync(staged)
    os.rename(staged, best)  # noqa: PTH104  a folder into its place, whole
