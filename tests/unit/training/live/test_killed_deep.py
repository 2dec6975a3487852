"""A deep model in a process of its own, killed at any instant: tables, weights and optimizer end with the same bits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from penstock.training.bundle import load
from penstock.training.live import settings
from penstock.training.live.learners import learner as learner_of

from .conftest import append, records, rows

SettingsFile = Callable[..., Path]
SAMPLES = 12_000
DETERMINISTIC = "[train]\nbatch = 20\nthreads = 1\ndeterministic = true\n[watch]\ntell_s = 5.0\n"


def newest_cut(path: Path) -> str:
    return max((str(cut) for cut in path.parent.glob(f"{path.stem}-cuts/gen-*/*.cut")), default="")


def consumed(path: Path) -> int:
    told = sorted(path.parent.glob(f"{path.stem}-cuts/gen-*/place.json"))
    return json.loads(told[-1].read_text())["samples"] if told else 0


def finished(path: Path, kills: int, seed: int) -> int:
    """Run to the end of the topic, killing it `kills` times; returns how many hit a run that had samples to go."""
    path.write_text(path.read_text().replace('-cuts"\n', '-cuts"\nevery_s = 0.15\n'))
    draws, hit = random.Random(seed), 0
    command = [sys.executable, "-m", "penstock.cli", "online", "run", path.name, "--take-over"]
    with path.with_suffix(".log").open("ab") as log:
        for last in [*[False] * kills, True]:
            before, done = newest_cut(path), consumed(path)
            upto = SAMPLES if last else done + int(draws.random() * (SAMPLES - done) / 3)
            process = subprocess.Popen(command, cwd=path.parent, stdout=log, stderr=log)
            try:
                deadline = time.monotonic() + 400
                while newest_cut(path) <= before or consumed(path) < upto:
                    assert process.poll() is None and time.monotonic() < deadline, path.with_suffix(".log").read_text()
                    time.sleep(0.001)
                time.sleep(0 if last else draws.random() * 0.03)
            finally:
                process.kill()
                process.wait()
            hit += not last and consumed(path) < SAMPLES
    return hit


def held(path: Path) -> tuple[list[bytes], Any]:
    """All that the newest cut holds of the model, and what became of each record."""
    file = settings.read(path)
    folder = Path(file.document.model.start)
    learner: Any = learner_of(load(str(folder)), folder, file.document.train, anew=False)
    try:
        sections = learner.resume(sorted(path.parent.glob(f"{path.stem}-cuts/gen-*"))[-1])
        assert sections is not None
        columns = [bytes(column) for table in range(len(learner.sizes)) for column in learner.tracked.export(table)]
        dense = [values.tobytes() for values in learner.dense().values()]
        own = [section for name, section in sorted(learner.trainer.sections().items())]
        return [*columns, *dense, *own, sections["metrics"]], json.loads(sections["loop"])["places"]["samples"]
    finally:
        learner.close()


def undisturbed_and_killed(settings_file: SettingsFile, tmp_path: Path, kills: int) -> int:
    append(f"log:{tmp_path}/samples", records(rows(SAMPLES, 1)))
    finished(straight := settings_file("deep", DETERMINISTIC, "straight"), 0, 0)
    hit = finished(killed := settings_file("deep", DETERMINISTIC, "killed"), kills, kills)
    (one, place), (other, place_too) = held(straight), held(killed)
    assert place["counts"]["samples"] == SAMPLES and place_too == place
    assert len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))
    return hit


@pytest.mark.soak  # three processes that import torch
def test_a_killed_deep_loop_ends_with_the_bits_of_one_that_nobody_disturbed(
    settings_file: SettingsFile, tmp_path: Path
) -> None:
    assert undisturbed_and_killed(settings_file, tmp_path, 1) == 1, "the kill must hit a run in its middle"


@pytest.mark.soak
def test_so_does_one_that_was_killed_ten_times(settings_file: SettingsFile, tmp_path: Path) -> None:
    assert undisturbed_and_killed(settings_file, tmp_path, 10) >= 5, "kills must hit runs in their middle"
