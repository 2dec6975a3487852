"""Linear SVM over numbers and keys, with scores calibrated on rows that the machine has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock import native
from penstock.training.matrices import Matrix
from penstock.training.metrics import auc
from penstock.training.sparse import Columns

Floats = npt.NDArray[np.float64]
#: Tells the stage, the epoch, and by how much the optimality conditions are still violated.
Progress = Callable[[str, int, float], None]

C_PATH = (0.001, 0.01, 0.1, 1.0)
FOLDS = 3
TOLERANCE = 0.02
EPOCHS = 300
#: Rows that the choice of C looks at.
CHOICE_ROWS = 200_000


@dataclass(frozen=True)
class Machine:
    """margin = bias + numbers (standardised) . number_weights + sum of key weights; score = sigmoid(a margin + b)."""

    bias: float
    number_weights: Floats
    means: Floats
    scales: Floats
    keys: tuple[tuple[npt.NDArray[np.uint64], Floats], ...]
    platt: tuple[float, float]
    c: float

    def number_margins(self, numbers: npt.NDArray[np.floating]) -> Floats:
        """The margins' numeric part, added column by column so that no batch size changes a bit."""
        margins = np.full(len(numbers), self.bias)
        for j, (weight, mean, scale) in enumerate(zip(self.number_weights, self.means, self.scales, strict=True)):
            margins += weight * standardised(numbers[:, j], mean, scale)
        return margins


def standardised(column: npt.NDArray[np.floating], mean: float, scale: float) -> Floats:
    """(x - mean) / scale; missing and infinite numbers count as the mean."""
    found = (column.astype(np.float64) - mean) / scale
    return np.where(np.isfinite(found), found, 0.0)


@dataclass(frozen=True)
class _Problem:
    """Rows as entries: first the standardised numbers, then keys scaled to at most 1."""

    offsets: npt.NDArray[np.int64]
    columns: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]
    size: int
    signs: Floats

    def fit(self, costs: Floats, seed: int, tell: Callable[[int, float], None]) -> tuple[Floats, float, Floats]:
        arrays = (pa.array(self.offsets), pa.array(self.columns), pa.array(self.values))
        weights, bias, margins = native.fit_svm(
            *arrays, self.size, pa.array(self.signs), pa.array(costs), seed, TOLERANCE, EPOCHS, tell
        )
        return weights.to_numpy(), bias, margins.to_numpy()


def fit(
    matrix: Matrix, labels: Floats, weights: Floats, valid: npt.NDArray[np.bool_], c: float | None, seed: int,
    threads: int, progress: Progress,
) -> Machine:  # fmt: skip
    """Fit on the rows outside `valid`. `c` None: the best of a few on held-out rows. Scores are calibrated on `valid`
    rows if there are any, otherwise on margins of machines fitted to the other two thirds (Platt)."""
    numbers = matrix.numbers.astype(np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    means, scales = _moments(numbers[~valid])
    columns = Columns.of(matrix.slots, threads)
    offsets, keys, values = columns.entries(matrix.slots) if matrix.slots else _none(matrix.rows)
    largest = np.zeros(columns.size)
    np.maximum.at(largest, keys, np.abs(values))
    largest[largest == 0] = 1.0
    dense = np.column_stack(
        [standardised(numbers[:, j], means[j], scales[j]) for j in range(numbers.shape[1])]
        or [np.zeros((matrix.rows, 0))]
    )
    problem = _with_numbers(dense, offsets, keys, (values / largest[keys]).astype(np.float32), columns.size, labels)
    fold = np.random.default_rng(seed).integers(0, FOLDS, matrix.rows)
    train = np.where(valid, 0.0, weights)
    check = valid if valid.any() else fold == 0
    if c is None:
        c = _choose(problem, train, check, labels, seed, progress)

    def run(name: str, costs: Floats) -> tuple[Floats, float, Floats]:
        return problem.fit(costs * c, seed, lambda epoch, violation: progress(name, epoch, violation))

    fitted, bias, margins = run("fitting", train)
    if not valid.any():
        margins = np.empty(matrix.rows)
        for k in range(FOLDS):
            out = fold == k
            if _both(labels, np.where(out, 0.0, train)):
                # Fewer rows at a higher cost each: the machine is held back as much as the whole one is.
                costs = np.where(out, 0.0, train) * FOLDS / (FOLDS - 1)
                margins[out] = run(f"calibrating, part {k + 1} of {FOLDS}", costs)[2][out]
            else:
                margins[out] = 0.0
        check = np.ones(matrix.rows, bool)
    judged = np.where(check, weights, 0.0)
    platt = native.platt(pa.array(margins), pa.array(problem.signs), pa.array(judged))
    if platt[0] <= 0:
        # Margins that rank the wrong way round are noise: do not turn the model over, keep its order.
        platt = (1e-6, platt[1])
    first = dense.shape[1]
    key_weights = fitted[first:] / largest
    bounds = np.cumsum([0, *(len(k) for k in columns.keys)])
    tables = tuple((k, key_weights[a:b]) for k, a, b in zip(columns.keys, bounds[:-1], bounds[1:], strict=True))
    return Machine(bias, fitted[:first], means, scales, tables, platt, c)


def _choose(
    problem: _Problem, train: Floats, check: npt.NDArray[np.bool_], labels: Floats, seed: int, progress: Progress
) -> float:
    step = -(-len(train) // CHOICE_ROWS)
    some = np.arange(len(train)) % step == 0
    fitting = np.where(check | ~some, 0.0, train)
    judging = check & some
    if not _both(labels, fitting) or not _both(labels, judging.astype(float)):
        return 1.0
    fitting *= train.sum() / fitting.sum()
    scores = []
    for c in C_PATH:
        tell = lambda epoch, violation, c=c: progress(f"trying c={c:g}", epoch, violation)  # noqa: E731
        margins = problem.fit(fitting * c, seed, tell)[2]
        scores.append(auc(labels[judging], margins[judging]) or 0.0)
    return C_PATH[int(np.argmax(scores))]


def _moments(numbers: Floats) -> tuple[Floats, Floats]:
    if not len(numbers) or not numbers.shape[1]:
        return np.zeros(numbers.shape[1]), np.ones(numbers.shape[1])
    held = np.maximum((~np.isnan(numbers)).sum(axis=0), 1)
    means = np.nansum(numbers, axis=0) / held
    scales = np.sqrt(np.nansum((numbers - means) ** 2, axis=0) / held)
    return means, np.where(scales > 0, scales, 1.0)


def _with_numbers(
    dense: Floats, offsets: npt.NDArray[np.int64], keys: npt.NDArray[np.uint32], values: npt.NDArray[np.float32],
    size: int, labels: Floats,
) -> _Problem:  # fmt: skip
    """Put the dense columns before each row's keys."""
    rows, first = dense.shape
    if first:
        lengths = np.diff(offsets)
        where = np.repeat(np.arange(rows), lengths)
        shift = np.arange(len(keys)) + (where + 1) * first
        all_columns = np.empty(len(keys) + rows * first, np.uint32)
        all_values = np.empty(len(keys) + rows * first, np.float32)
        all_columns[shift], all_values[shift] = keys + np.uint32(first), values
        at = (offsets[:-1] + np.arange(rows) * first)[:, None] + np.arange(first)
        all_columns[at], all_values[at] = np.arange(first, dtype=np.uint32), dense
        offsets, keys, values = offsets + np.arange(rows + 1) * first, all_columns, all_values
    return _Problem(offsets, keys, values, first + size, np.where(labels == 1, 1.0, -1.0))


def _none(rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    return np.zeros(rows + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32)


def _both(labels: Floats, weights: Floats) -> bool:
    return bool((weights[labels == 1] > 0).any() and (weights[labels == 0] > 0).any())
