"""What goes out as f16 is served as the trainer has it, rounded to the nearest half: rows, and no other weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from penstock.training.live.run import Loop
from penstock.training.online_scorer import FIRST, W

from .conftest import append, records, rows
from .serving import Host, published, scored, until
from .test_run import run_until

SettingsFile = Callable[..., Path]
PUBLISH = "[train]\nbatch = 100\n[publish]\ntopic = 'log:chain'\nevery_ms = 50\nvalues = 'f16'\n"
#: Each key beside each of the other slot.
PAIRS = pl.DataFrame({"user": [f"u{at}" for at in range(60)]}).join(
    pl.DataFrame({"item": [f"i{at}" for at in range(30)]}), how="cross"
).with_columns(price=pl.lit(8.0))  # fmt: skip


def round_rows(loop: Loop) -> None:
    """Every row of the trainer's to halves, as far as it is published."""
    learner: Any = loop.learner
    if "keys" in learner.sizes:
        fields, keys, values = (column.to_numpy() for column in learner.trainer.rows())
        table, own = values.reshape(len(keys), -1).copy(), fields >= 0
        for place in (W, *range(FIRST, table.shape[1])):
            table[own, place] = halves(table[own, place])
        learner.trainer.put(pa.array(fields), pa.array(keys), pa.array(table.ravel()))
        return
    for table in range(len(learner.sizes)):
        keys, values, state, counts, seen = learner.tracked.export(table)
        learner.tracked.put(
            table, np.frombuffer(keys, np.int64), halves(np.frombuffer(values, np.float32)),
            np.frombuffer(state, np.float32), np.frombuffer(counts, np.uint32), np.frombuffer(seen, np.uint32),
        )  # fmt: skip


def halves(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("kind", ["lr", "fm-forgetful", "deep"])
def test_a_host_serves_the_trainers_rows_rounded_to_halves(
    kind: str, settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    if kind == "deep":
        pytest.importorskip("torch")
    append(f"log:{tmp_path}/samples", records(rows(1500, 1)))
    loop = run_until(settings_file(kind, PUBLISH), 1500)
    host = Host(tmp_path, models(kind))
    try:
        until(lambda: host.ready and host.at() == published(loop), "the host does not follow")
        found, _ = host.asked(PAIRS)
    finally:
        host.stop()
    scratches = [tmp_path / name for name in ("exact", "rounded")]
    for scratch in scratches:
        scratch.mkdir()
    exact = scored(loop, models(kind), scratches[0], PAIRS)
    round_rows(loop)
    rounded = scored(loop, models(kind), scratches[1], PAIRS)
    np.testing.assert_allclose(found, rounded, rtol=0, atol=1e-6)
    assert np.median(np.abs(exact - rounded)) > 5e-6, "rounding changes nothing: nothing was proved"
