"""Boosted trees by LightGBM: growing them, and their text model as a value that can be given other leaf values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penstock.training.faults import need_trees

if TYPE_CHECKING:
    import lightgbm as lgb

# OpenMP's threads burn a core while they wait for one another, which on a busy machine slows everybody tenfold.
# libgomp reads this when it is loaded, so it stands here, before any import of lightgbm.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

Floats = npt.NDArray[np.float64]
#: Numbers that one thread gets through before a second one is worth waking.
_WORTH_A_THREAD = 200_000
#: Tells how many of how many trees are grown.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TreeParameters:
    """How trees grow. The same parameters, rows and seed give the same trees at any number of threads."""

    trees: int
    leaves: int
    rate: float
    min_rows: int
    l2: float
    subsample: float
    seed: int
    threads: int

    def as_lightgbm(self) -> dict[str, Any]:
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "learning_rate": self.rate,
            "min_data_in_leaf": self.min_rows,
            "lambda_l2": self.l2,
            "bagging_fraction": self.subsample,
            "bagging_freq": int(self.subsample < 1),
            "seed": self.seed,
            "num_threads": self.threads,
            # Histograms are summed column by column, so that no sum depends on how rows are dealt to threads.
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }


class Rows:
    """Training rows binned once; forests may be grown on any part of them."""

    def __init__(
        self, x: Any, labels: Floats, weights: Floats | None, names: Sequence[str], categorical: Sequence[str],
        parameters: TreeParameters,
    ) -> None:  # fmt: skip
        need_trees()
        import lightgbm as lgb

        _silence()
        parameters = replace(parameters, threads=_useful(parameters.threads, x))
        self.parameters = parameters
        # LightGBM refuses some characters of names that columns may have, so columns are numbered for it.
        known = [f"f{i}" for i in range(len(names))]
        chosen = [f"f{i}" for i, name in enumerate(names) if name in set(categorical)]
        self.data = lgb.Dataset(
            x, labels, weight=weights, feature_name=known, categorical_feature=chosen,
            params={**parameters.as_lightgbm(), "max_bin": 255}, free_raw_data=False,
        ).construct()  # fmt: skip

    def part(self, rows: npt.NDArray[np.bool_]) -> lgb.Dataset:
        return self.data.subset(np.flatnonzero(rows).tolist())

    def grow(
        self, train: lgb.Dataset, progress: Progress, stop: lgb.Dataset | None = None, trees: int | None = None
    ) -> lgb.Booster:
        """Grow a forest; with `stop`, until its loss has not fallen for a while, and cut it there."""
        import lightgbm as lgb

        trees = trees or self.parameters.trees
        calls: list[Any] = [lambda env: progress(env.iteration + 1, env.end_iteration)]
        if stop is not None:
            calls.append(lgb.early_stopping(max(10, min(50, trees // 5)), verbose=False))
        valid = [stop] if stop is not None else None
        booster = lgb.train(self.parameters.as_lightgbm(), train, trees, valid_sets=valid, callbacks=calls)
        if stop is None or booster.best_iteration <= 0:
            return booster
        return lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def leaves(booster: lgb.Booster, x: Any, threads: int) -> npt.NDArray[np.uint16]:
    """(rows, trees): the leaf each row falls into."""
    found = booster.predict(x, pred_leaf=True, num_threads=_useful(threads, x))
    return np.asarray(found).reshape(x.shape[0], -1).astype(np.uint16)


def margins(booster: lgb.Booster, x: Any, threads: int) -> Floats:
    """(rows,): the raw score, before the sigmoid."""
    found: Floats = np.asarray(booster.predict(x, raw_score=True, num_threads=_useful(threads, x)), np.float64).reshape(
        -1
    )
    return found


_LEAF_VALUE = re.compile(r"^leaf_value=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Ensemble:
    """A LightGBM text model taken apart: the head, a block a tree, the tail."""

    head: str
    trees: tuple[str, ...]
    tail: str

    @staticmethod
    def of(booster: lgb.Booster) -> Ensemble:
        head, *rest = re.split(r"^(?=Tree=\d+$)", booster.model_to_string(num_iteration=-1), flags=re.MULTILINE)
        last, end, tail = rest[-1].partition("end of trees") if rest else ("", "end of trees", "")
        return Ensemble(head, (*rest[:-1], last) if rest else (), end + tail)

    def values(self, tree: int) -> Floats:
        """The values of one tree's leaves."""
        found = _LEAF_VALUE.search(self.trees[tree])
        assert found is not None
        return np.array(found[0].removeprefix("leaf_value=").split(), np.float64)

    def with_values(self, values: Sequence[Floats]) -> Ensemble:
        """The same trees with other leaf values."""
        trees = (
            _LEAF_VALUE.sub("leaf_value=" + " ".join(repr(float(v)) for v in own), tree, count=1)
            for tree, own in zip(self.trees, values, strict=True)
        )
        return Ensemble(self.head, tuple(trees), self.tail)

    def joined(self, other: Ensemble) -> Ensemble:
        """The trees of both (grown on the same columns) in one model."""
        return Ensemble(self.head, (*self.trees, *other.trees), self.tail)

    def text(self) -> str:
        numbered = [
            re.sub(r"^Tree=\d+$", f"Tree={i}", t, count=1, flags=re.MULTILINE) for i, t in enumerate(self.trees)
        ]
        sizes = " ".join(str(len(t.encode())) for t in numbered)
        head = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", self.head, count=1, flags=re.MULTILINE)
        return head + "".join(numbered) + self.tail


def _useful(threads: int, x: Any) -> int:
    """No more threads than the work is worth; their number changes no result."""
    numbers = int(x.shape[0]) * int(x.shape[1])
    return max(1, min(threads or os.cpu_count() or 1, 1 + numbers // _WORTH_A_THREAD))


def importance(booster: lgb.Booster, names: Sequence[str]) -> Mapping[str, float]:
    """Total gain by column, greatest first; columns that no split uses are left out."""
    gains = booster.feature_importance("gain")
    found = {name: float(gain) for name, gain in zip(names, gains, strict=True) if gain > 0}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _silence() -> None:
    """LightGBM prints; what people should see goes through progress instead."""
    import lightgbm as lgb

    class Quiet:
        def info(self, message: str) -> None: ...

        def warning(self, message: str) -> None: ...

    lgb.register_logger(Quiet())
