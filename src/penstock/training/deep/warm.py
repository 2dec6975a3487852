"""Going on from a model: what carries over is matched by name and definition, and told in a table.

A feature that is new begins anew, one that is gone is dropped: rows, and the dense weights that read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from penstock.features.plan import Plan
from penstock.training.bundle import Bundle
from penstock.training.checkpoints import carry
from penstock.training.deep.building import Built, Parameters
from penstock.training.deep.models import MODELS
from penstock.training.deep.models.parts import Axes, Blocks
from penstock.training.deep.reading import Reading
from penstock.training.deep.scorer import TRAINING, WEIGHTS, DeepScorer
from penstock.training.deep.state import unpack
from penstock.training.faults import LearningError
from penstock.training.online_fitting import definition

#: Whether rows bring their optimizer's state.
State = Literal["keep", "fresh"]
#: What of a table must be as it was, or its rows mean something else.
KEPT: Mapping[State, Sequence[str]] = {"keep": ("dim", "optimizer", "dtype"), "fresh": ("dim",)}


def go_on(
    start: Bundle,
    folder: Path,
    built: Built,
    reading: Reading,
    plan: Plan | None,
    parameters: Parameters,
    *,
    anew: bool,
    state: State,
    rows: bool = True,
) -> Mapping[str, Any]:
    """Carry rows (with `rows`), with their `state` or a fresh one, and dense weights of the bundle `start` over.

    Returns the table of what became of each part.

    Raises `LearningError` for another model, for one without its training state, and, unless `anew` says to begin those
    slots anew, for slots whose dim or optimizer changed.
    """
    old = start.scorer
    if not isinstance(old, DeepScorer) or old.model != parameters.model:
        made = old.model if isinstance(old, DeepScorer) else f"of '{start.algorithm}'"
        said = f"start is a model ({made}), and this step trains a {parameters.model}"
        raise LearningError(said, "leave start out to begin anew", "TRAIN020")
    if not (folder / TRAINING).is_dir():
        raise LearningError("start holds no training state: it can score, but not be trained further", "", "TRAIN020")
    tables = built.inputs.tables
    before = {str(table["name"]): table for table in old.tables}
    fates = dict(_fates(old, tables.slots, start.plan, plan))
    changed = [
        f"{name}: {key} {before[name][key]} is now {table.document()[key]}"
        for table in tables.tables
        for name in [table.name]
        for key in KEPT[state]
        if fates.get(name) == "carried" and before[name].get(key) != table.document().get(key)
    ]
    if changed and not anew:
        raise LearningError(
            f"slots are not what they were: {'; '.join(changed)}", 'changed="anew" begins them anew', "TRAIN044"
        )
    for said in changed:
        fates[said.split(":")[0]] = "begun anew"
    taken = [table.name for table in tables.tables if fates.get(table.name) == "carried"]
    carried = carry(folder / TRAINING, tables, taken, state=state) if rows else {}
    for at, name in enumerate(old.numbers):
        if name in reading.encoder.number_names:
            new = reading.encoder.number_names.index(name)
            # The weights mean what the old scale made of the number.
            reading.means[new], reading.scales[new] = old.means[at], old.scales[at]
            fates[name] = "carried"
        else:
            fates[name] = "dropped"
    fates |= {name: "new" for name in reading.encoder.number_names if name not in fates}
    axes = MODELS[parameters.model].axes
    now = {table.name: table.dim for table in tables.tables}
    then = {name: int(table["dim"]) for name, table in before.items()}
    _dense(
        built,
        unpack((folder / TRAINING / WEIGHTS).read_bytes()),
        axes(_blocks(old.slots, old.shared, then, parameters.lead), [(name, 1) for name in old.numbers]),
        axes(
            _blocks(built.inputs.slots, tables.slots, now, parameters.lead),
            [(name, 1) for name in reading.encoder.number_names],
        ),
        fates,
    )
    told = [[name, carried.get(name, 0), became] for name, became in fates.items()]
    text = "a slot whose definition changed begins anew; what the new columns lack is dropped"
    title = "What was carried on from the model before"
    return {"kind": "table", "title": title, "columns": ["name", "rows", "became"], "rows": told, "text": text}


def _fates(
    old: DeepScorer, slots: Mapping[str, str], before: Plan | None, after: Plan | None
) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys((*old.slots, *slots)):
        if name not in slots:
            yield name, "dropped"
        elif name not in old.slots:
            yield name, "new"
        else:
            same = old.shared[name] == slots[name]
            if before and after and name in before.slots and name in after.slots:
                same = same and definition(before, name) == definition(after, name)
            yield name, "carried" if same else "begun anew"


def _blocks(names: Sequence[str], shared: Mapping[str, str], dims: Mapping[str, int], lead: int) -> Blocks:
    return [(name, dims[shared[name]] - lead) for name in names]


def _dense(
    built: Built, stored: Mapping[str, torch.Tensor], before: Axes, after: Axes, fates: Mapping[str, str]
) -> None:
    """Weights are taken whole, or along an axis that runs over the inputs block by block: what is new there keeps
    what it was made with. A layer of another size begins anew."""
    with torch.no_grad():
        for name, values in built.model.state_dict().items():
            old = stored.get(name)
            if old is None or old.dim() != values.dim():
                continue
            if name not in after:
                if old.shape == values.shape:
                    values.copy_(old)
                continue
            axis, blocks = after[name]
            others = [at for at in range(values.dim()) if at != axis]
            if any(old.shape[at] != values.shape[at] for at in others):
                continue
            held = _starts(before[name][1])
            for block, (start, width) in _starts(blocks).items():
                if fates.get(block) == "carried" and held.get(block, (0, 0))[1] == width:
                    values.narrow(axis, start, width).copy_(old.narrow(axis, held[block][0], width))
            end, old_end = (sum(width for _, width in each) for each in (blocks, before[name][1]))
            rest = values.shape[axis] - end
            if rest and old.shape[axis] - old_end == rest:  # what stands behind the inputs: a network's own output
                values.narrow(axis, end, rest).copy_(old.narrow(axis, old_end, rest))


def _starts(blocks: Blocks) -> dict[str, tuple[int, int]]:
    found, at = {}, 0
    for name, width in blocks:
        found[name] = (at, width)
        at += width
    return found
