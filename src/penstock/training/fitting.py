"""From samples to a scorer, one function an algorithm: `gbdt`, `gbdt_lr`, `svm`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.operators.base import RunContext
from penstock.training import linear, sections, svm, trees
from penstock.training.metrics import metrics
from penstock.training.samples import Samples
from penstock.training.scorers import Fit, MachineScorer, Scorer, TreeScorer
from penstock.training.sparse import Columns
from penstock.training.trees import Ensemble, TreeParameters

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Input:
    """What the trees split on: the numbers, or key columns where there are no numbers."""

    x: Any
    names: Sequence[str]
    categorical: Sequence[str]
    columns: Columns | None

    @staticmethod
    def of(samples: Samples, min_rows: int, threads: int) -> _Input:
        encoder, matrix = samples.encoder, samples.matrix
        if encoder.number_names:
            return _Input(matrix.numbers, encoder.number_names, encoder.layout.categorical, None)
        # A key in fewer rows than a leaf must hold can never be split on.
        columns = Columns.of(matrix.slots, threads, min_rows)
        fields = zip(encoder.field_names, columns.keys, strict=True)
        names = [f"{name}={key}" for name, keys in fields for key in keys]
        return _Input(columns.csr(matrix.slots), names, (), columns)


def fit_gbdt(samples: Samples, parameters: TreeParameters, context: RunContext) -> Fit:
    """Boosted trees on all training rows, stopped early where there are valid rows."""
    given = _Input.of(samples, parameters.min_rows, parameters.threads)
    rows = _rows(samples, given, parameters)
    has_valid = bool(samples.valid.any())
    train = rows.part(samples.train) if has_valid else rows.data
    stop = rows.part(samples.valid) if has_valid else None
    booster = rows.grow(train, lambda n, of: context.progress(f"growing trees: {n} of {of}", n, of), stop)
    scorer = TreeScorer(booster.model_to_string(num_iteration=-1), columns=given.columns)
    bar = sections.importances(trees.importance(booster, given.names))
    return Fit(scorer, {"trees": booster.num_trees(), **_judged(scorer, samples, context)}, [bar] if bar else [])


def fit_gbdt_lr(
    samples: Samples, parameters: TreeParameters, slots: bool, l1: float, l2: float | None, context: RunContext
) -> Fit:
    """Two forests, each grown on one half of the rows, and a regression over honest leaves (see `linear`)."""
    given = _Input.of(samples, parameters.min_rows, parameters.threads)
    rows = _rows(samples, given, parameters)
    has_valid = bool(samples.valid.any())
    draws = np.random.default_rng(parameters.seed).random(samples.matrix.rows)
    half = draws < 0.5
    each = max(1, -(-parameters.trees // 2))
    count = len(samples.labels)
    codes: list[linear.Codes] = []
    boosters = []
    for number, own in enumerate((half, ~half)):
        stop = rows.part(samples.valid if has_valid else ~own & samples.train)
        done = number * each

        def tell(n: int, of: int, done: int = done) -> None:
            context.progress(f"growing trees: {done + n} of {2 * each}", done + n, 2 * each)

        booster = rows.grow(rows.part(own & samples.train), tell, stop, each)
        boosters.append(booster)
        unseen = np.flatnonzero(~own)
        found = trees.leaves(booster, given.x[unseen], parameters.threads)
        for tree in range(found.shape[1]):
            column = np.full(count, linear.NO_LEAF, np.uint16)
            column[unseen] = found[:, tree]
            codes.append(column)
    first, second = (Ensemble.of(b) for b in boosters)
    ensemble = first.joined(second)
    priors = [ensemble.values(t) for t in range(len(ensemble.trees))]
    weights = np.where(samples.valid, 0.0, samples.weights)
    design = linear.Design(codes, priors, samples.matrix.slots if slots else (), samples.labels, weights)
    held_out = samples.valid if has_valid else np.modf(draws * 1024)[0] < linear.HELD_OUT
    if has_valid:
        design = linear.Design(codes, priors, design.slots, samples.labels, samples.weights)
    fitted = linear.fit(
        design, held_out, l1, l2, parameters.threads,
        lambda stage, n, loss: context.progress(f"{stage}: pass {n}, loss {loss / max(weights.sum(), 1e-300):.5f}", n),
        final=weights,
    )  # fmt: skip
    # A row trained through one forest and is scored through both: each counts half.
    halves = [w / 2 for w in fitted.leaves]
    bias = fitted.bias
    if not slots:
        # One tree ensemble on its own: every row ends in one leaf of the first tree, which takes the bias.
        halves[0] = halves[0] + bias
        bias = 0.0
    scorer = TreeScorer(ensemble.with_values(halves).text(), tuple(fitted.keys), bias, given.columns)
    gains: dict[str, float] = {}
    for booster in boosters:
        for name, gain in trees.importance(booster, given.names).items():
            gains[name] = gains.get(name, 0.0) + gain
    bar = sections.importances(dict(sorted(gains.items(), key=lambda item: -item[1])))
    numbers = {
        "trees": len(ensemble.trees),
        "lr_l1": fitted.l1,
        "lr_l2": fitted.l2,
        "keys": sum(len(k) for k, _ in fitted.keys),
        **_judged(scorer, samples, context),
    }
    return Fit(scorer, numbers, [bar] if bar else [])


def fit_svm(samples: Samples, c: float | None, seed: int, threads: int, context: RunContext) -> Fit:
    machine = svm.fit(
        samples.matrix, samples.labels, samples.weights, samples.valid, c, seed, threads,
        lambda stage, n, violation: context.progress(f"{stage}: epoch {n}, violation {violation:.3f}", n),
    )  # fmt: skip
    scorer = MachineScorer(machine, samples.encoder.number_names)
    return Fit(scorer, {"c": machine.c, **_judged(scorer, samples, context)})


def _rows(samples: Samples, given: _Input, parameters: TreeParameters) -> trees.Rows:
    context_weights = samples.weights if samples.weighted else None
    return trees.Rows(given.x, samples.labels, context_weights, given.names, given.categorical, parameters)


def _judged(scorer: Scorer, samples: Samples, context: RunContext) -> dict[str, float | int | None]:
    """Rows, and the metrics on `valid` rows where there are any: those on training rows would flatter."""
    found: dict[str, float | int | None] = {"rows": int(samples.train.sum())}
    if not samples.valid.any():
        return found
    context.progress("scoring the valid rows")
    at = samples.valid
    matrix = samples.matrix
    part = type(matrix)(int(at.sum()), matrix.numbers[at], tuple(k.take(at) for k in matrix.slots))
    weights = samples.weights[at] if samples.weighted else None
    judged = metrics(samples.labels[at], scorer.scores(part, context.threads), weights)
    return found | {f"valid_{name}": value for name, value in judged.items()}
