"""What goes out of a loop: versions, only while the gates are green, and the way back to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.registry import Registry
from penstock.training.bundle import load
from penstock.training.live import settings
from penstock.training.live.faults import LiveError
from penstock.training.live.rollback import roll_back, status

from .conftest import append, records, rows
from .test_run import run_until

SettingsFile = Callable[..., Path]
#: A version after each batch.
EVERY = "[bases]\nevery_s = 0.001\nkeep = 4\nalias = 'live'\n[watch]\ntell_s = 0.001\n"


def test_versions_are_made_proved_released_and_gone_back_to(settings_file: SettingsFile, tmp_path: Path) -> None:
    append(f"log:{tmp_path}/samples", records(rows(2000, 1)))
    path = settings_file(
        "lr", f"[train]\nbatch = 500\ndeterministic = true\n[gates]\nhalf_life = 300\nauc = 0.55\n{EVERY}"
    )
    run_until(path, 2000)
    append(f"log:{tmp_path}/samples", records(rows(1000, 2), first=2000))
    loop = run_until(path, 3000)
    found = loop.outgoing.bases.all()  # type: ignore[union-attr]
    assert [base for base in found if base.good], "some passed a whole window with green gates behind them"
    with Registry() as registry:
        live = registry.resolve("models:/ctr@live")
        bundle = load(registry.fetch(live))
        assert live.lineage["online"]["samples"] > 0 and bundle.label == "label"
    good = [base for base in found if base.good][-1]
    told = status(settings.read(path))
    assert told["generation"] == 2 and good.version in [each["version"] for each in told["versions"]]

    with pytest.raises(LiveError, match="is no version"):
        roll_back(settings.read(path), to="777")
    done = roll_back(settings.read(path))
    assert (done["version"], done["generation"], done["skip"]) == (good.version, 3, False)
    replayed = run_until(path, 3000)
    counts = replayed.state.places["samples"].counts
    assert replayed.done["generation"] == 4 and counts["samples"] == 3000  # type: ignore[attr-defined]
    assert replayed.state.gaps == 0

    done = roll_back(settings.read(path), to=good.version, skip=True)
    assert done["gap"] == 3000 - good.samples
    append(f"log:{tmp_path}/samples", records(rows(500, 3), first=3000))
    skipped = run_until(path, good.samples + 500)
    assert skipped.state.samples == good.samples + 500, "what lay between was left out"
    assert skipped.done["gaps"] == done["gap"] and skipped.done["positions"] == {"0": 3500}  # type: ignore[attr-defined]


def test_a_lag_beyond_its_bound_thins_samples_by_id_and_counts_what_it_leaves_out(
    settings_file: SettingsFile, tmp_path: Path
) -> None:
    old = records(rows(4000, 1))  # of 2023
    append(f"log:{tmp_path}/samples", old)
    path = settings_file("lr", "[lag]\npolicy = 'sample'\nmost_s = 60\nkeep = 0.25")
    loop = run_until(path, 950)
    counts = loop.state.places["samples"].counts
    assert counts["samples"] + counts["skipped"] == 4000 and 900 < counts["samples"] < 1100
    weight = loop.quality.metrics._total.histogram.sum()
    assert weight == pytest.approx(4 * counts["samples"])


def test_history_comes_before_the_topic(settings_file: SettingsFile, tmp_path: Path) -> None:
    rows(500, 5).write_parquet(tmp_path / "a.parquet")
    rows(300, 6).write_parquet(tmp_path / "b.parquet")
    append(f"log:{tmp_path}/samples", records(rows(200, 7)))
    history = "[history]\npath = '*.parquet'\nlabel = 'label'\n[train]\nbatch = 64\n"
    path = settings_file("lr", history, model="anew = true")
    first = run_until(path, 600)
    loop = run_until(path, 1000)
    assert first.state.samples <= loop.state.samples == 1000
    assert loop.state.places["history"].next == {0: 800} and loop.state.places["samples"].next == {0: 200}
