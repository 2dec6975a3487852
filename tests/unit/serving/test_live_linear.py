"""Rows of `lr` and `fm` that follow a chain: a run sees all of one delta, memory is bounded, what is gone is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import native
from penstock.registry import bundles
from penstock.training.online_scorer import FIRST, OnlineScorer, Rates, W

from .live_model import scores

#: A power of two, so that the sum of equal weights is exact.
KEYS = list(range(256))
RANK = 2


class Trainer:
    """An `fm` of one field, whose rows are put: margin = bias + the ids' weights, and their factors' products."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sequence = folder, 0
        self.rates = Rates("sgd", 0.1, 1.0, 0.0, 0.0, RANK, 0.1, 0.0, 0.1)
        self.online = self.rates.trainer(slots=1, numbers=0, shared=False, positions=False, batch=1, seed=0, threads=1)
        self.online.track_changes("chain")

    def put(self, keys: Sequence[int], weight: float, *, bias: float, factor: float = 0.0) -> None:
        fields = pa.array([-1] + [0] * len(keys), pa.int32())
        values = np.zeros((1 + len(keys), self.online.width), np.float32)
        values[0, W], values[1:, W], values[1:, FIRST : FIRST + RANK] = bias, weight, factor
        self.online.put(fields, pa.array([0, *keys], pa.uint64()), pa.array(values.ravel()))

    def delta(self) -> tuple[list[bytes], int, int]:
        """What changed since the last one, as `Following.apply` takes it."""
        bodies, epochs, rows, gone, _ = self.online.pack_changes("chain", [], False, 1 << 20)
        self.online.tell_changes("chain", epochs)
        self.sequence += 1
        mark = (1, self.sequence, self.sequence, 1)
        own = [(name, shape, values.to_numpy()) for name, shape, values in self.online.own_weights()]
        return native.delta_records(mark, bodies, own, rows, gone, ("m", "", "", "{}"), 1 << 20)[:-1], 1, self.sequence

    def written(self, name: str) -> Path:
        staged = self.folder / f"{name}.tmp"
        staged.mkdir(parents=True)
        fields, keys, values = (column.to_numpy() for column in self.online.rows())
        none = np.zeros(0)
        scorer = OnlineScorer(self.rates, (), none, none, False, 1, fields, keys, values.reshape(len(keys), -1))
        model = scorer.save(staged)
        return sealed(staged, self.folder / name, "fm", model, [["ids", ""]])


def sealed(staged: Path, folder: Path, algorithm: str, model: Mapping[str, Any], slots: list[list[str]]) -> Path:
    (staged / "categories.json").write_text("{}")
    layout = {"numeric": [], "vectors": [], "categorical": [], "slots": slots, "positions": False}
    signature = {"inputs": [{"name": name, "type": "list<item: int64>"} for name, _ in slots], "outputs": []}
    encoder = {"layout": layout, "widths": [], "places": 0}
    manifest = {"algorithm": algorithm, "plan": "", "model": model, "signature": signature, "encoder": encoder}
    bundles.seal(staged, folder, manifest)
    return folder


def served(folder: Path, overlay_bytes: int | None = 1 << 20) -> tuple[native.ServedModel, native.Following]:
    model = native.ServedModel(str(folder), overlay_bytes=overlay_bytes)
    following = model.following()
    assert following is not None
    return model, following


def test_a_run_sees_rows_and_weights_of_one_delta_while_deltas_are_applied(tmp_path: Path) -> None:
    """Every delta sets all rows to its number, the bias against their sum: a run that sees two scores no half."""
    trainer = Trainer(tmp_path)
    model, following = served(trainer.written("b"))
    chain, done = [], threading.Event()
    for turn in range(1, 201):
        trainer.put(KEYS, turn, bias=-256 * turn)
        chain.append(trainer.delta())

    def follow() -> None:
        for number, delta in enumerate(chain):
            following.apply(*delta)
            if number % 20 == 0:  # a run at least is made before the next, however fast this is
                runs = len(seen)
                while len(seen) == runs:
                    time.sleep(0.001)
        done.set()

    seen: list[int] = []
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    while not done.is_set():
        assert set(scores(model, [KEYS, KEYS[::-1], KEYS]).tolist()) == {0.5}
        assert model.position is not None
        seen.append(model.position[1])
    thread.join()
    assert scores(model, [KEYS]).tolist() == [0.5] and model.position == (1, 200)
    assert seen == sorted(seen) and len(set(seen)) > 5, "too few deltas were met to prove anything"


def test_the_overlay_is_bounded_and_a_row_of_zeros_takes_no_room(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    trainer.put(KEYS[:10], 1.0, bias=0.0, factor=0.5)
    base = trainer.written("b")
    trainer.online.track_changes("chain")
    model, following = served(base, overlay_bytes=100 * (4 * trainer.online.width + 44))
    trainer.put(KEYS[:10], 0.0, bias=0.0)  # as good as gone
    trainer.put(KEYS[100:190], 2.0, bias=0.0)
    following.apply(*trainer.delta())
    assert scores(model, [KEYS[:10]]).tolist() == [0.5] and scores(model, [[100]])[0] > 0.88
    trainer.put(KEYS[100:190], 0.0, bias=0.0)  # of which the base knows nothing: they leave room for others
    following.apply(*trainer.delta())
    trainer.put(KEYS[10:100], 0.0, bias=0.0)
    following.apply(*trainer.delta())
    before = scores(model, [KEYS[:10], [100]])
    trainer.put(KEYS[100:201], 2.0, bias=0.0)
    too_much = trainer.delta()
    with pytest.raises(ValueError, match=r"the overlay is full \(100 rows\); open a newer base"):
        following.apply(*too_much)
    assert scores(model, [KEYS[:10], [100]]).tolist() == before.tolist() == [0.5, 0.5]
    assert model.position == (1, 3)
    following.stage(trainer.written("later"), 1, 4)
    following.show()
    assert scores(model, [[100]])[0] > 0.88 and model.position == (1, 4)


def test_models_without_rows_of_keys_follow_nothing(tmp_path: Path) -> None:
    model = {"form": "svm", "bias": 0.0, "platt": [1.0, 0.0], "fields": 0, "numbers": []}
    (tmp_path / "staged").mkdir()
    folder = sealed(tmp_path / "staged", tmp_path / "svm", "svm", model, [])
    assert native.ServedModel(str(folder)).following() is None
    with pytest.raises(RuntimeError, match="only lr, fm and deep models follow a chain"):
        native.ServedModel(str(folder), overlay_bytes=1 << 20)
