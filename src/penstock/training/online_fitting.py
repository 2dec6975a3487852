"""From frames to a scorer that learnt from them as they streamed: passes, early stopping, and going on from a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import did_you_mean
from penstock.features.plan import Plan
from penstock.operators.base import RunContext
from penstock.training.bundle import Bundle
from penstock.training.faults import InputError, LearningError
from penstock.training.inputs import Layout
from penstock.training.matrices import Encoder
from penstock.training.online import OnlineParameters, Stream, Targets, begin
from penstock.training.online_cuts import Cuts, Position
from penstock.training.online_scorer import NUMBERS, OnlineScorer
from penstock.training.scorers import Fit

#: Bits of a mapped key below its slot id (CONTRACT §2).
VALUE_BITS = np.uint64(52)


@dataclass(frozen=True)
class Task:
    """What is learnt from what. `mapped`: the keys say which slot they are of; `start`: a model to go on from."""

    frame: Any
    valid: Any | None
    layout: Layout
    label: str
    weight: str
    mapped: bool
    plan: Plan | None
    start: Bundle | None

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys((*self.layout.columns, self.label, *([self.weight] if self.weight else []))))


def fit(task: Task, parameters: OnlineParameters, context: RunContext) -> tuple[Encoder, Fit]:
    """Pass after pass; the last one that helped on `valid` rows is kept. Goes on from what a killed run left.

    Raises `LabelError`, `InputError`, `ArtefactError`.
    """
    names = task.names
    if task.valid is not None:
        _require(names, task.valid.collect_schema().names())
    whole = set(names) == set(task.frame.collect_schema().names())
    frame = task.frame if whole else task.frame.select(names)  # as it is, it may be read without Polars between
    stream, batches = begin(task.layout, task.mapped, parameters, iter(context.batches(frame)), context)
    cuts = Cuts(context.kept, parameters.checkpoint_every, task.plan.fingerprint if task.plan else "")
    found = stream.resume(cuts)
    place = found or Position()
    sections: list[Mapping[str, Any]] = []
    if task.start is not None:
        sections.append(_go_on(task, task.start, stream, rows=found is None))
    if found is not None:
        batches = iter(context.batches(frame.slice(place.row)))
    best = cuts.kept(place.best_epoch) if place.best_epoch else None
    while True:
        stream.learn(batches, Targets(frame, task.label, task.weight, context), place, cuts)
        if place.epoch == 1:
            place.numbers = _progressive(stream)
        if task.valid is not None:
            context.progress(f"scoring the valid rows after epoch {place.epoch}")
            judged = stream.judge(*_valid(task, context))
            loss, before = judged["logloss"], place.judged.get("logloss")
            if best is not None and not (loss is not None and (before is None or loss < before)):
                break
            best, place.judged, place.best_epoch = stream.scorer(), judged, place.epoch
        if place.epoch == parameters.epochs:
            break
        if best is not None:
            cuts.keep(best, place.best_epoch)
        place.epoch, place.row = place.epoch + 1, 0
        cuts.save(stream.trainer, place)
        batches = iter(context.batches(frame))
    scorer = best or stream.scorer()
    numbers = {**place.numbers, "epochs": place.best_epoch or place.epoch}
    numbers["keys"] = int((scorer.row_fields >= 0).sum())
    numbers |= {f"valid_{name}": value for name, value in place.judged.items()}
    return stream.feed.encoder, Fit(scorer, numbers, sections)


def _valid(task: Task, context: RunContext) -> tuple[Iterator[pa.RecordBatch], Targets]:
    assert task.valid is not None
    frame = task.valid.select(task.names)
    return iter(context.batches(frame)), Targets(frame, task.label, task.weight, context)


def _require(names: Sequence[str], known: Sequence[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        hint = did_you_mean(missing[0], known, "it needs the columns of the training frame")
        raise InputError(f"the valid frame has no column '{missing[0]}'", hint, "TRAIN009")


def _progressive(stream: Stream) -> dict[str, float | int | None]:
    rows, _, loss, area = stream.trainer.progress()
    judged = {"progressive_logloss": loss, "progressive_auc": area}
    return {"rows": rows, **{name: value if np.isfinite(value) else None for name, value in judged.items()}}


# --- going on from a model ---


def _go_on(task: Task, start: Bundle, stream: Stream, *, rows: bool) -> Mapping[str, Any]:
    """Put the rows of `start` in; slots and numbers are matched by name. Returns the table of what became of each.

    Without `rows`: a checkpoint has them already.
    """
    old = start.scorer
    if not isinstance(old, OnlineScorer) or old.rates.rank != stream.parameters.rates.rank:
        made = f"{start.algorithm} of rank {old.rates.rank}" if isinstance(old, OnlineScorer) else start.algorithm
        said = f"start is a model of '{made}'; the step's rank is {stream.parameters.rates.rank}"
        raise LearningError(said, "leave start out to begin anew", "TRAIN020")
    if old.shared != stream.shared:
        said = "start reads its keys from slots of a feature plan and this step does not, or the other way round"
        raise LearningError(said, "give both the same kind of columns, or leave start out", "TRAIN020")
    table: list[list[Any]] = []
    fields, keys, taken = old.row_fields.copy(), old.row_keys.copy(), np.zeros(len(old.row_keys), bool)
    _numbers(stream, old, keys, taken, table)
    if old.shared and start.plan is not None and task.plan is not None:
        _slots(task, start.plan, old, keys, taken, table)
    else:
        _fields(task, start.encoder, old, fields, taken, table)
    if rows:
        stream.trainer.put(pa.array(fields[taken]), pa.array(keys[taken]), pa.array(old.row_values[taken].ravel()))
        stream.trainer.warm()
    text = "a slot whose definition changed begins anew; what the new columns lack is dropped"
    title = "What was carried on from the model before"
    return {"kind": "table", "title": title, "columns": ["name", "rows", "became"], "rows": table, "text": text}


def _numbers(
    stream: Stream,
    old: OnlineScorer,
    keys: npt.NDArray[np.uint64],
    taken: npt.NDArray[np.bool_],
    table: list[list[Any]],
) -> None:
    new = list(stream.feed.encoder.number_names)
    own = old.row_fields == NUMBERS
    bias = own & (old.row_keys == 0)
    taken |= bias
    for place, name in enumerate(old.numbers):
        row = own & (old.row_keys == 1 + place)
        if name in new:
            at = new.index(name)
            keys[row] = 1 + at
            # The weight means what the old scale made of the number.
            stream.feed.means[at], stream.feed.scales[at] = old.means[place], old.scales[place]
            taken |= row
        table.append([name, 1, "carried" if name in new else "dropped"])
    table += [[name, 0, "new"] for name in new if name not in old.numbers]


def _slots(
    task: Task, before: Plan, old: OnlineScorer, keys: npt.NDArray[np.uint64], taken: npt.NDArray[np.bool_],
    table: list[list[Any]],
) -> None:  # fmt: skip
    """Slots of a plan: the id in a key's high bits becomes the new plan's."""
    assert task.plan is not None
    read = {name for name, _ in task.layout.slots}
    ids = (old.row_keys >> VALUE_BITS).astype(np.int64)
    flat = len(task.layout.slots) == 1 and not read & set(task.plan.slots)  # form="flat": every slot in one list
    for name, number in before.slots.items():
        rows = (old.row_fields >= 0) & (ids == number)
        count = int(rows.sum())
        there = name in task.plan.slots and (flat or name in read)
        same = there and definition(before, name) == definition(task.plan, name)
        if same:
            low = keys[rows] & ((np.uint64(1) << VALUE_BITS) - np.uint64(1))
            keys[rows] = low | (np.uint64(task.plan.slots[name]) << VALUE_BITS)
            taken |= rows
        table.append([name, count, "carried" if same else "begun anew" if there else "dropped"])
    table += [[name, 0, "new"] for name in task.plan.slots if name not in before.slots and (flat or name in read)]


def _fields(
    task: Task, encoder: Encoder, old: OnlineScorer, fields: npt.NDArray[np.int32], taken: npt.NDArray[np.bool_],
    table: list[list[Any]],
) -> None:  # fmt: skip
    """Raw columns: a field is a column, or a place in its list."""
    if old.shared or task.layout.positions:
        rows = old.row_fields >= 0
        taken |= rows
        table.append([", ".join(encoder.field_names[:20]), int(rows.sum()), "carried"])
        return
    new = [name for name, _ in task.layout.slots]
    for place, name in enumerate(encoder.field_names):
        rows = old.row_fields == place
        if name in new:
            fields[rows] = new.index(name)
            taken |= rows
        table.append([name, int(rows.sum()), "carried" if name in new else "dropped"])
    table += [[name, 0, "new"] for name in new if name not in encoder.field_names]


def definition(plan: Plan, name: str) -> Any:
    """What a slot computes: its item without the id, and with what it reads spelt out."""
    items = plan.items

    def spelt(index: int) -> Any:
        item = {key: value for key, value in items[index].items() if key not in ("id", "from", "name", "as")}
        item["from"] = [spelt(s["item"]) if "item" in s else s for s in items[index]["from"]]
        return item

    at = next(i for i, item in enumerate(items) if item["name"] == name and item["as"] == "slot")
    return spelt(at), plan.document.get("seed")
