"""A deep model as it scores: rows from a snapshot, the rest by ONNX Runtime; no PyTorch.

Files in a bundle: `rows.snapshot` (values only, mapped), `dense.onnx`, and `training/` for a later run to start from: a
checkpoint of the tables with their optimizers' state, and the dense weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.registry.bundles import GRAPH
from penstock.training.deep.batches import bags_of
from penstock.training.matrices import Matrix
from penstock.training.online_scorer import scaled, sigmoid
from penstock.training.snapshots import Snapshot
from penstock.training.tables import Bag

Floats = npt.NDArray[np.float64]

ROWS, DENSE, TRAINING, WEIGHTS = "rows.snapshot", GRAPH, "training", "dense.state"
#: Rows scored at a time: the looked-up rows of so many are held at once.
BLOCK = 8_192


@dataclass(frozen=True, eq=False)
class DeepScorer:
    """score = sigmoid(the dense graph's logit). `folder`: where the files are; `feeds`: what the graph takes, in order.

    A row's score may differ in its last bits with the batch that it is scored in: matrix products are cut differently.
    """

    folder: Path
    feeds: Sequence[Mapping[str, Any]]
    slots: Sequence[str]
    numbers: Sequence[str]
    means: Floats
    scales: Floats
    #: The tables as they were declared: dim, optimizer, what a missing key reads.
    tables: Sequence[Mapping[str, Any]]
    #: Slot -> its table.
    shared: Mapping[str, str]
    model: str

    @cached_property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.folder / ROWS, self.slots)

    @cached_property
    def session(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        return ort.InferenceSession(self.folder / DENSE, options, providers=["CPUExecutionProvider"])

    def scores(self, matrix: Matrix, threads: int) -> Floats:
        blocks = range(0, matrix.rows, BLOCK)
        logits = [self._logits(matrix.part(a, min(matrix.rows, a + BLOCK))) for a in blocks]
        return sigmoid(np.concatenate([np.zeros(0), *logits]))

    def _logits(self, matrix: Matrix) -> Floats:
        bags = bags_of(self.slots, matrix)
        given: dict[str, Any] = {}
        for feed in self.feeds:
            slots = feed["slots"]
            if feed["kind"] == "pooled":
                value: Any = self.snapshot.pool({slot: bags[slot] for slot in slots}, feed["pooling"])
            elif feed["kind"] == "rows":
                value = self._padded(slots[0], bags[slots[0]])
            elif feed["kind"] == "lengths":
                value = np.diff(bags[slots[0]].offsets)
            else:
                value = scaled(matrix.numbers, self.means, self.scales)
            given[feed["name"]] = value
        logits: npt.NDArray[np.float32] = self.session.run(["logit"], given)[0]
        return logits.astype(np.float64)

    def _padded(self, slot: str, bag: Bag) -> npt.NDArray[np.float32]:
        """The rows of each sample's keys in order, zeros after them: [samples, longest, dim]."""
        padded, mask = self.snapshot.rows(slot, bag)
        if bag.weights is not None:
            padded[mask] *= bag.weights[:, None]
        return padded

    def save(self, folder: Path) -> Mapping[str, Any]:
        for name in (ROWS, DENSE):
            shutil.copyfile(self.folder / name, folder / name)
        if (self.folder / TRAINING).is_dir():
            shutil.copytree(self.folder / TRAINING, folder / TRAINING)
        numbers = zip(self.numbers, self.means, self.scales, strict=True)
        return {
            "form": "deep",
            "model": self.model,
            "feeds": [dict(feed) for feed in self.feeds],
            "slots": list(self.slots),
            "tables": [dict(table) for table in self.tables],
            "shared": dict(self.shared),
            "numbers": [{"name": n, "mean": float(m), "scale": float(s)} for n, m, s in numbers],
        }

    @staticmethod
    def load(folder: Path, stored: Mapping[str, Any]) -> DeepScorer:
        numbers = stored["numbers"]
        means, scales = (np.array([n[what] for n in numbers], np.float64) for what in ("mean", "scale"))
        return DeepScorer(
            folder, stored["feeds"], stored["slots"], [n["name"] for n in numbers], means, scales, stored["tables"],
            stored["shared"], str(stored["model"]),
        )  # fmt: skip
