"""Models that learn batch by batch without an end: what the loop asks of one, and `lr` and `fm`.

A row's weight may be negative: it then acts with minus its gradient, which takes back what such a row taught.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.registry.chain import Tracked
from penstock.training.artefacts import told
from penstock.training.bundle import Bundle
from penstock.training.deep.batches import Rows
from penstock.training.faults import LearningError
from penstock.training.matrices import Encoder
from penstock.training.online_scorer import OnlineScorer, sigmoid, to_native
from penstock.training.scorers import Scorer

Floats = npt.NDArray[np.float64]
#: Scores nearer to 0 or 1 count as this near, where a negative weight is turned round.
NEAREST = 1e-3


class Learner(ABC):
    """A model in training. One thread uses it; cuts are taken between two calls of `learn`."""

    #: Numbers are (value - mean) / scale, as the bundle it began from says.
    means: Floats
    scales: Floats
    encoder: Encoder

    @abstractmethod
    def learn(self, rows: Rows) -> Floats:
        """Score the rows, then learn from them in one step; returns the scores, float64 [rows].

        Raises `LearningError` where the model would not stay finite.
        """

    @abstractmethod
    def resume(self, folder: Path) -> Mapping[str, bytes] | None:
        """The newest cut in a folder into this model, which has learnt nothing yet; returns the loop's own sections."""

    @abstractmethod
    def begin(self) -> None:
        """Where there is no cut: take over what the model has learnt that it goes on from."""

    @abstractmethod
    def cut_into(self, folder: Path) -> None:
        """Cuts go there from now on; the first one is whole."""

    @abstractmethod
    def prepare(self, sections: Mapping[str, bytes]) -> None:
        """Begin a cut here; nothing is written yet."""

    @abstractmethod
    def write(self, rows: int) -> bool:
        """Write about so many rows of the open cut; whether it is whole, and lasts, now."""

    @abstractmethod
    def scorer(self, scratch: Path) -> Scorer:
        """The model as it is, to be stored. `scratch`: an empty folder for its files."""

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Rows of each table."""

    @property
    @abstractmethod
    def tracked(self) -> Tracked:
        """Where rows are published from."""

    @abstractmethod
    def dense(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """The weights that are published beside rows, by name."""

    #: Whether these go with every delta: where hosts need do nothing for them but copy a few numbers.
    dense_always = False

    def close(self) -> None:  # noqa: B027  most have nothing to close
        """Leave the process as it was."""


class OnlineLearner(Learner):
    """`lr` and `fm`: rows go to the native trainer a batch a call, and are stepped before it returns."""

    dense_always = True

    def __init__(self, bundle: Bundle, *, batch: int, threads: int, anew: bool) -> None:
        old = bundle.scorer
        assert isinstance(old, OnlineScorer)
        given = bundle.parameters
        self.encoder = bundle.encoder
        self.old, self.plan, self.threads = old, bundle.fingerprint, max(1, threads)
        self.means, self.scales = old.means.copy(), old.scales.copy()
        self.trainer = old.rates.trainer(
            slots=old.fields, numbers=len(old.numbers), shared=old.shared, positions=False, batch=batch,
            seed=int(given.get("seed", 0)), threads=self.threads, evict_after=int(given.get("evict_after", 0)),
        )  # fmt: skip
        self.trainer.begin_pass()
        self._anew = anew
        #: As of the last batch: other threads ask while the trainer is at work, and it is one thread's alone.
        self._keys = self.trainer.keys

    def learn(self, rows: Rows) -> Floats:
        slots, numbers = [to_native(keys) for keys in rows.matrix.slots], pa.array(rows.numbers.ravel())
        margins = self.trainer.margins(slots, numbers, rows.count, self.threads).to_numpy(zero_copy_only=False)
        scores = sigmoid(margins)
        assert rows.labels is not None
        labels, weights = turned(rows.labels, rows.weights, scores)
        try:
            self.trainer.learn(slots, numbers, pa.array(labels), None if weights is None else pa.array(weights))
            self.trainer.finish()
        except ValueError as error:
            raise LearningError(str(error), "", "TRAIN040") from error
        self._keys = self.trainer.keys
        return scores

    def resume(self, folder: Path) -> Mapping[str, bytes] | None:
        with told(folder):
            sections = self.trainer.resume(str(folder), self.plan)
        self._keys = self.trainer.keys
        return sections

    def begin(self) -> None:
        if not self._anew:
            old = self.old
            self.trainer.put(pa.array(old.row_fields), pa.array(old.row_keys), pa.array(old.row_values.ravel()))
            self.trainer.warm()
        self._keys = self.trainer.keys

    def cut_into(self, folder: Path) -> None:
        with told(folder):
            self.trainer.resume(str(folder), self.plan)

    def prepare(self, sections: Mapping[str, bytes]) -> None:
        with told():
            self.trainer.prepare_cut(list(sections.items()))

    def write(self, rows: int) -> bool:
        with told():
            return self.trainer.write_cut(rows)

    def scorer(self, scratch: Path) -> Scorer:
        old = self.old
        fields, keys, values = self.trainer.rows()
        table = values.to_numpy(zero_copy_only=False).reshape(len(keys), self.trainer.width)
        return OnlineScorer(
            old.rates, old.numbers, self.means, self.scales, old.shared, old.fields,
            fields.to_numpy(zero_copy_only=False), keys.to_numpy(zero_copy_only=False), table,
        )  # fmt: skip

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"keys": self._keys}

    @property
    def tracked(self) -> Tracked:
        return self.trainer

    def dense(self) -> Mapping[str, npt.NDArray[np.float32]]:
        own = self.trainer.own_weights()
        return {name: values.to_numpy().reshape(shape) for name, shape, values in own}


def turned(
    labels: npt.NDArray[np.float32], weights: npt.NDArray[np.float32] | None, scores: Floats
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """The same gradients with weights of 0 or more.

    The gradient by the margin is w (p - y). Of label 0 and weight -w that is -w p, which label 1 has with weight
    w p / (1 - p); of label 1 and -w it is w (1 - p), which label 0 has with w (1 - p) / p.
    """
    if weights is None or not (weights < 0).any():
        return labels, weights
    negative = weights < 0
    p = np.clip(scores, NEAREST, 1 - NEAREST)
    odds = np.where(labels == 1, (1 - p) / p, p / (1 - p))
    return (
        np.where(negative, 1 - labels, labels).astype(np.float32),
        np.where(negative, -weights * odds, weights).astype(np.float32),
    )


def learner(bundle: Bundle, folder: Path, settings: Any, *, anew: bool) -> Learner:
    """For the model of a bundle. `settings`: `settings.Train`. Raises `LearningError` (LIVE005) for models that do not
    learn row by row."""
    if isinstance(bundle.scorer, OnlineScorer):
        return OnlineLearner(bundle, batch=settings.batch, threads=settings.threads, anew=anew)
    if bundle.algorithm == "deep":
        from penstock.training.live.deep_learner import DeepLearner

        return DeepLearner(bundle, folder, settings, anew=anew)
    said = f"{folder} is a model of '{bundle.algorithm}', which is trained on all rows at once"
    raise LearningError(said, "lr, fm and deep models learn from a stream", "LIVE005")
