"""A `deep` model in training without an end: the same trainer as the operator's, a batch a step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.training.bundle import Bundle
from penstock.training.checkpoints import Checkpoints, OpenCut
from penstock.training.deep.batches import Rows
from penstock.training.deep.building import build
from penstock.training.deep.export import with_weights
from penstock.training.deep.machine import determined
from penstock.training.deep.reading import Reading
from penstock.training.deep.scorer import DENSE, ROWS, TRAINING, WEIGHTS, DeepScorer
from penstock.training.deep.state import pack
from penstock.training.deep.trainer import Trainer
from penstock.training.deep.warm import go_on
from penstock.training.deep_operators import Deep
from penstock.training.live.learners import Floats, Learner
from penstock.training.scorers import Scorer
from penstock.training.snapshots import write_snapshot

#: The loop's sections of a cut, apart from the trainer's.
OWN = "loop."


class DeepLearner(Learner):
    """Tables, a dense part and its optimizer, as the bundle's step says."""

    def __init__(self, bundle: Bundle, folder: Path, settings: Any, *, anew: bool) -> None:
        assert isinstance(bundle.scorer, DeepScorer)
        old = bundle.scorer
        self.bundle, self.folder, self.plan, self._anew = bundle, folder, bundle.fingerprint, anew
        self.means, self.scales = old.means.copy(), old.scales.copy()
        # Read now: of a bundle in the cache the folder may go. Versions differ in weights, never in their graph, and
        # each export by PyTorch would take seconds and leave a megabyte behind.
        self._graph, self._feeds = (folder / DENSE).read_bytes(), old.feeds
        step = Deep.model_validate(dict(bundle.parameters))
        self.encoder = encoder = bundle.encoder
        self.parameters = step.built_as(settings.threads)
        slots = set(bundle.plan.slots) if bundle.plan else set()
        self.mapped = bool(bundle.plan) and {name for name, _ in encoder.layout.slots} <= slots
        self.built = build(encoder.field_names, len(encoder.number_names), self.mapped, self.parameters)
        chosen = step.trained_as(settings.threads, deterministic=settings.deterministic)
        self.trainer = Trainer(self.built.model, self.tables_of, self.built.optimizer, chosen)
        self._checkpoints: Checkpoints | None = None
        self._cut: OpenCut | None = None
        self._held = contextlib.ExitStack()
        self._held.enter_context(determined(chosen.threads, deterministic=chosen.deterministic))

    @property
    def tables_of(self) -> Any:
        return self.built.inputs.tables

    def learn(self, rows: Rows) -> Floats:
        return self.trainer.learn(rows)

    def begin(self) -> None:
        if self._anew:
            return
        encoder = self.bundle.encoder
        reading = Reading(None, lambda frame: [], encoder, self.means, self.scales, self.bundle.label)
        go_on(
            self.bundle, self.folder, self.built, reading, self.bundle.plan, self.parameters, anew=False, state="keep"
        )

    def resume(self, folder: Path) -> Mapping[str, bytes] | None:
        sections = Checkpoints(folder, self.tables_of, plan=self.plan).resume()
        if sections is None:
            return None
        self.trainer.restore(sections)
        return {name.removeprefix(OWN): each for name, each in sections.items() if name.startswith(OWN)}

    def cut_into(self, folder: Path) -> None:
        self._checkpoints = Checkpoints(folder, self.tables_of, plan=self.plan)

    def prepare(self, sections: Mapping[str, bytes]) -> None:
        assert self._checkpoints is not None
        own = {OWN + name: each for name, each in sections.items()}
        full = self._checkpoints.outweighed
        self._cut = self._checkpoints.prepare({**self.trainer.sections(), **own}, full=full)

    def write(self, rows: int) -> bool:
        assert self._checkpoints is not None
        if self._cut is None or not self._cut.write(rows):
            return False
        self._cut.commit()
        self._cut = None
        self._checkpoints.prune()
        return True

    def scorer(self, scratch: Path) -> Scorer:
        tables, encoder = self.tables_of, self.bundle.encoder
        write_snapshot(tables, scratch / ROWS, plan=self.plan)
        Checkpoints(scratch / TRAINING, tables, plan=self.plan).save({}, full=True)
        (scratch / TRAINING / WEIGHTS).write_bytes(pack(self.built.model.state_dict()))
        (scratch / DENSE).write_bytes(with_weights(self._graph, self.dense()))
        return DeepScorer(
            scratch, self._feeds, encoder.field_names, encoder.number_names, self.means,
            self.scales, [table.document() for table in tables.tables], tables.slots, self.parameters.model,
        )  # fmt: skip

    def close(self) -> None:
        self._held.close()

    @property
    def sizes(self) -> Mapping[str, int]:
        found: Mapping[str, int] = self.tables_of.rows
        return found

    @property
    def tracked(self) -> native.Tables:
        found: native.Tables = self.tables_of.native
        return found

    def dense(self) -> Mapping[str, npt.NDArray[np.float32]]:
        state = self.built.model.state_dict()
        return {name: np.array(values.detach().numpy(), np.float32) for name, values in state.items()}
