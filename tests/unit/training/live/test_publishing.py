"""What a loop publishes is what it has learnt: after a kill, a shut gate, a rollback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from penstock.registry.chain import newest_base, read
from penstock.streams import open_topic
from penstock.training.live import settings
from penstock.training.live.run import Loop

from .conftest import append, records, rows
from .test_run import run_until

SettingsFile = Callable[..., Path]
PUBLISH = "[train]\nbatch = 100\n[publish]\ntopic = 'log:chain'\nevery_ms = 50\n"


def served(tmp_path: Path) -> tuple[dict[tuple[int, int], bytes], dict[str, Any], list[tuple[int, int]]]:
    """Rows, dense weights and heads as a host has them that followed from the first delta on."""
    held: dict[tuple[int, int], bytes] = {}
    dense: dict[str, Any] = {}
    heads = []
    with open_topic(f"log:{tmp_path}/chain") as topic:
        for delta in read(topic, None, model="ctr"):
            for table, (keys, values) in delta.rows.items():
                held |= {(table, int(key)): row.tobytes() for key, row in zip(keys, values, strict=True)}
            for table, keys in delta.gone.items():
                for key in keys.tolist():
                    held.pop((table, key), None)
            dense |= delta.dense or {}
            heads.append((delta.generation, delta.to))
    return held, dense, heads


def trained(loop: Loop) -> dict[tuple[int, int], bytes]:
    """Rows as the trainer has them."""
    found: dict[tuple[int, int], bytes] = {}
    learner: Any = loop.learner
    for table in range(len(learner.sizes)):
        keys, values = (np.frombuffer(column, kind) for column, kind in
                        zip(learner.tracked.export(table)[:2], (np.int64, np.float32), strict=True))  # fmt: skip
        each = values.reshape(len(keys), -1)
        found |= {(table, int(key)): row.tobytes() for key, row in zip(keys, each, strict=True)}
    return found


def same(tmp_path: Path, loop: Loop) -> list[tuple[int, int]]:
    """Hold what is served against what is learnt, key by key; the heads of all deltas."""
    held, dense, heads = served(tmp_path)
    own = trained(loop)
    assert held and all(own[key] == row for key, row in held.items())
    for name, values in loop.learner.dense().items():
        np.testing.assert_array_equal(dense[name], values)
    return heads


def test_hosts_hold_what_the_trainer_has_also_after_it_died_behind_its_deltas(
    settings_file: SettingsFile, tmp_path: Path
) -> None:
    append(f"log:{tmp_path}/samples", records(rows(1000, 1)))
    path = settings_file("deep", PUBLISH)
    first = run_until(path, 1000)
    assert {generation for generation, _ in same(tmp_path, first)} == {1}

    append(f"log:{tmp_path}/samples", records(rows(1000, 2), first=1000))
    died = Loop(settings.read(path))
    died._save = lambda: None  # type: ignore[method-assign]  # killed before its last cut: its deltas are out, though
    import threading
    import time

    def stop() -> None:
        while died.state.samples < 2000:
            time.sleep(0.01)
        time.sleep(0.2)
        died.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    died.run()
    thread.join()
    ahead, _, _ = served(tmp_path)

    recovered = Loop(settings.read(path))
    recovered.stop()  # it recovers, and learns a batch at most
    recovered.run()
    assert recovered.state.samples <= 1100
    heads = same(tmp_path, recovered)
    assert heads[-1][0] == 3 and served(tmp_path)[0] != ahead
    last = run_until(path, 2000)
    assert same(tmp_path, last)[-1][0] == 4


def test_a_model_without_its_weights_begins_with_a_base_of_its_own(settings_file: SettingsFile, tmp_path: Path) -> None:
    append(f"log:{tmp_path}/samples", records(rows(600, 1)))
    loop = run_until(settings_file("deep", PUBLISH, model="anew = true"), 600)
    same(tmp_path, loop)
    with open_topic(f"log:{tmp_path}/chain") as topic:
        base = newest_base(topic, "ctr")
    assert base is not None and base.address == "models:/ctr/1"


def test_a_version_has_the_graph_that_the_loop_began_with_and_the_weights_of_now(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    """Exporting one each time took seconds of the loop, and left a megabyte behind."""
    import onnx
    from onnx import numpy_helper

    append(f"log:{tmp_path}/samples", records(rows(600, 1)))
    loop = run_until(settings_file("deep"), 600)
    (tmp_path / "version").mkdir()
    loop.learner.scorer(tmp_path / "version")
    first, now = (onnx.load(folder / "dense.onnx").graph for folder in (models("deep"), tmp_path / "version"))
    assert [node.SerializeToString() for node in now.node] == [node.SerializeToString() for node in first.node]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in now.initializer}
    for name, values in loop.learner.dense().items():
        np.testing.assert_array_equal(held[name], values)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in first.initializer}
    assert any((held[name] != before[name]).any() for name in loop.learner.dense())
