"""The linear part of `gbdt_lr`: a sparse logistic regression over tree leaves and slots.

The rows are dealt into two halves and a forest is grown on each. A row trains the regression through the leaves of the
forest that has *not* seen it, so the leaves are as honest as they will be on new rows (leaves of the rows' own forest
look far better than they are, and crowd out the slots). A new row passes through both forests, each at half weight.
Leaf weights start at the trees' own values and L2 pulls them back there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock import native
from penstock.training.matrices import Keys

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint16]

#: No leaf: the row has been seen by this forest.
NO_LEAF = np.uint16(65535)
#: Tried from strong to weak until held-out rows are predicted worse; unit: inverse variance of a key's weight.
L2_PATH = (100.0, 30.0, 10.0, 3.0, 1.0)
HELD_OUT = 0.1
#: Rows that the choice of L2 looks at: the best prior variance of a weight does not depend on the number of rows.
CHOICE_ROWS = 100_000
#: A fit ends when a pass lowers the loss by less than this share; to choose among penalties, less will do.
FINAL, CHOICE = 1e-4, 1e-3


@dataclass(frozen=True)
class Design:
    """The regression's rows. `codes[t]`: (rows,) the leaf in tree t; `priors[t]`: the values of its leaves."""

    codes: Sequence[Codes]
    priors: Sequence[Floats]
    slots: Sequence[Keys]
    labels: Floats
    weights: Floats

    @property
    def rows(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.bool_]) -> Design:
        return Design(
            [c[rows] for c in self.codes], self.priors, [k.take(rows) for k in self.slots],
            self.labels[rows], self.weights[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """Weights of a fit: of each tree's leaves, and of each slot's keys (ascending)."""

    bias: float
    leaves: Sequence[Floats]
    keys: Sequence[tuple[npt.NDArray[np.uint64], Floats]]
    l1: float
    l2: float


#: Tells the stage, the pass and the loss.
Progress = Callable[[str, int, float], None]


def fit(
    design: Design, held_out: npt.NDArray[np.bool_], l1: float, l2: float | None, threads: int, progress: Progress,
    *, final: Floats,
) -> Fitted:  # fmt: skip
    """Fit with the row weights `final`; where `l2` is None, choose it first by the loss on `held_out` rows.

    A row holds a leaf of each of its forest's trees, so leaves take `l2` times the number of those trees.
    """
    if l2 is None:
        l2 = _choose(design, held_out, l1, threads, progress)
    problem = _problem(design, threads)
    _solve(problem, design, final, l1, l2, FINAL, lambda n, loss: progress("fitting weights", n, loss))
    trees = len(design.codes)
    return Fitted(
        problem.bias,
        [_array(problem.weights(t)) for t in range(trees)],
        [_kept(problem, trees + s) for s in range(len(design.slots))],
        l1,
        l2,
    )


def _choose(design: Design, held_out: npt.NDArray[np.bool_], l1: float, threads: int, progress: Progress) -> float:
    if design.rows > CHOICE_ROWS:
        step = -(-design.rows // CHOICE_ROWS)
        some = np.arange(design.rows) % step == 0
        design, held_out = design.take(some), held_out[some]
    fitting = np.where(held_out, 0.0, design.weights)
    judging = np.where(held_out, np.maximum(design.weights, np.finfo(float).tiny), 0.0)
    if not _both_classes(design.labels, fitting) or not _both_classes(design.labels, judging):
        return 10.0
    problem = _problem(design, threads)
    best, least = L2_PATH[0], np.inf
    for l2 in L2_PATH:
        _solve(problem, design, fitting, l1, l2, CHOICE, lambda n, loss, l2=l2: progress(f"trying L2 {l2:g}", n, loss))  # type: ignore[misc]
        loss = _loss(design.labels, _array(problem.margins()), judging)
        if loss > least:
            break
        best, least = l2, loss
    return best


def _problem(design: Design, threads: int) -> native.Logistic:
    problem = native.Logistic(design.rows, threads)
    for codes, prior in zip(design.codes, design.priors, strict=True):
        problem.add_codes(pa.array(codes), len(prior), pa.array(prior))
    for slot in design.slots:
        values = pa.array(slot.values) if slot.values is not None else None
        problem.add_keys(pa.array(slot.offsets), pa.array(slot.keys), values)
    return problem


def _solve(
    problem: native.Logistic, design: Design, weights: Floats, l1: float, l2: float, tolerance: float,
    tell: Callable[[int, float], None],
) -> None:  # fmt: skip
    trees = len(design.codes)
    per_tree = l2 * max(1, trees // 2)
    penalties = [per_tree] * trees + [l2] * len(design.slots)
    problem.fit(pa.array(design.labels), pa.array(weights), l1, penalties, tolerance, tell)


def _kept(problem: native.Logistic, index: int) -> tuple[npt.NDArray[np.uint64], Floats]:
    weights = _array(problem.weights(index))
    keys: npt.NDArray[np.uint64] = problem.keys(index).to_numpy(zero_copy_only=False)
    kept = weights != 0
    return keys[kept], weights[kept]


def _array(values: pa.Array) -> Floats:
    found: Floats = values.to_numpy(zero_copy_only=False)
    return found


def _both_classes(labels: Floats, weights: Floats) -> bool:
    return bool(((labels == 1) & (weights > 0)).any() and ((labels == 0) & (weights > 0)).any())


def _loss(labels: Floats, margins: Floats, weights: Floats) -> float:
    loss = np.logaddexp(0.0, margins) - labels * margins
    return float(np.dot(loss, weights) / weights.sum())
