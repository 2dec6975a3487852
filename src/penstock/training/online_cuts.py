"""Cuts of `lr` and `fm` in training: what a killed run goes on from, to the bit.

A cut has the trainer between two calls of `learn` (rows, optimizer state, sketches, metrics) and where the run is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock import native
from penstock.training.artefacts import told
from penstock.training.online_scorer import OnlineScorer

#: Rows that an open cut writes after each batch.
ROWS_A_BATCH = 200_000
SCORER = "scorer.json"


@dataclass
class Position:
    """Where a run is: the next row of which epoch, what was said so far, the best epoch and what `valid` said of it.

    `signs`, `ones`, `rows`: of the labels read. `places`: the longest list of keys, where places are fields.
    """

    epoch: int = 1
    row: int = 0
    signs: list[int] = field(default_factory=list)
    ones: int = 0
    rows: int = 0
    places: int = 0
    numbers: dict[str, float | int | None] = field(default_factory=dict)
    best_epoch: int = 0
    judged: dict[str, float | int | None] = field(default_factory=dict)


@dataclass
class Cuts:
    """The cuts of one run in `folder`, one each `every` rows.

    Raises `ArtefactError` where one cannot be written or read. With `every` 0 there are none, nothing is touched.
    """

    folder: Path
    every: int
    plan: str = ""
    _next: int = 0
    _open: bool = False
    _kept: int = 0

    def resume(self, trainer: native.Online) -> Position | None:
        """The newest cut into `trainer`; None where there is none."""
        if not self.every:
            return None
        with told(self._cuts):
            sections = trainer.resume(str(self._cuts), self.plan)
        if sections is None:
            return None
        position = Position(**json.loads(sections["position"]))
        self._next = position.row + self.every
        return position

    def parts(self, batches: Iterable[pa.RecordBatch], row: int) -> Iterator[pa.RecordBatch]:
        """The batches, of which the first begins at `row`, cut where the next cut is due."""
        for batch in batches:
            at = 0
            while at < batch.num_rows:
                left = batch.num_rows - at
                part = batch.slice(at, min(left, max(self._next - row, 1)) if self.every else left)
                yield part
                at += part.num_rows
                row += part.num_rows

    def go_on(self, trainer: native.Online, position: Position) -> None:
        """Write at the open cut, or begin one where it is time; nothing of what is learnt changes."""
        if not self.every:
            return
        with told(self._cuts):
            if self._open:
                self._open = not trainer.write_cut(ROWS_A_BATCH)
            elif position.row >= self._next:
                self._prepare(trainer, position)

    def save(self, trainer: native.Online, position: Position) -> None:
        """Cut here and write all of it; one that is open is written first."""
        if not self.every:
            return
        with told(self._cuts):
            self._finish(trainer)
            self._prepare(trainer, position)
            self._finish(trainer)

    def begin_pass(self) -> None:
        """Rows are counted from 0 again."""
        self._next = self.every

    def _prepare(self, trainer: native.Online, position: Position) -> None:
        trainer.prepare_cut([("position", json.dumps(vars(position)).encode())])
        self._open, self._next = True, position.row + self.every

    def _finish(self, trainer: native.Online) -> None:
        while self._open:
            self._open = not trainer.write_cut(1 << 62)

    # --- the best model so far ---

    def keep(self, scorer: OnlineScorer, epoch: int) -> None:
        """The best model is that of `epoch` now. The one before stays too: the newest cut may still name it."""
        if not self.every:
            return
        staged = self.folder / "best.staged"
        for old in [staged, *self.folder.glob("best-*")]:
            if old.name != f"best-{self._kept}":
                shutil.rmtree(old, ignore_errors=True)
        staged.mkdir(parents=True)
        (staged / SCORER).write_text(json.dumps(scorer.save(staged)))
        os.rename(staged, self.folder / f"best-{epoch}")  # noqa: PTH104  a folder into its place, whole
        self._kept = epoch

    def kept(self, epoch: int) -> OnlineScorer:
        """The best model, as `keep` was given it."""
        folder = self.folder / f"best-{epoch}"
        self._kept = epoch
        stored: Mapping[str, Any] = json.loads((folder / SCORER).read_text())
        return OnlineScorer.load(folder, stored)

    @property
    def _cuts(self) -> Path:
        return self.folder / "cuts"
