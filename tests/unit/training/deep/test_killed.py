"""Killed at any instant and started again, until it is done: the bits of an undisturbed run, every sample once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

ROWS = 24_000
TEST = Path(__file__).parent


def start(folder: Path, threads: int) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    module = f"import sys; sys.path.insert(0, {str(TEST)!r}); import learning; from pathlib import Path"
    script = f"{module}; learning.main(Path({str(folder)!r}), {ROWS}, {threads})"
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, env=environment)


def finish(run: subprocess.Popen[bytes]) -> None:
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said.decode()[-3000:]


def killed_until_done(folder: Path, threads: int, kills: int, seed: int) -> int:
    """How many of the kills hit a run that was training, beyond its first checkpoint."""
    draws = random.Random(seed)
    hit = 0
    for _ in range(kills):
        before = newest(folder)
        run = start(folder, threads)
        wanted = before + draws.randint(1, 2)
        while run.poll() is None and newest(folder) < wanted:
            time.sleep(0.01)
        time.sleep(draws.random() * 0.05)
        if run.poll() is not None:
            finish(run)
            break
        run.send_signal(signal.SIGKILL)
        run.communicate()
        hit += newest(folder) > 0
    if not (folder / "done.npz").exists():
        finish(start(folder, threads))
    return hit


def newest(folder: Path) -> int:
    cuts = [int(path.name.split(".")[0]) for path in (folder / "cuts").glob("*.cut")]
    return max(cuts, default=0)


def everything(folder: Path) -> dict[str, bytes]:
    with np.load(folder / "done.npz") as held:
        return {name: held[name].tobytes() for name in held.files}


def run_of(folder: Path, kills: int, seed: int) -> None:
    undisturbed = folder / "undisturbed"
    finish(start(undisturbed, 1))
    hit = killed_until_done(folder / "killed", 1, kills, seed)
    assert hit >= kills // 2, "most kills must hit a run in its middle"
    assert everything(folder / "killed") == everything(undisturbed)
    killed_until_done(folder / "threads", 2, max(2, kills // 3), seed)
    with np.load(folder / "threads" / "done.npz") as held:
        assert (held["uses"] == 2).all(), "two epochs: every sample acts twice"


def test_ten_kills(tmp_path: Path) -> None:
    run_of(tmp_path, 10, seed=int.from_bytes(os.urandom(4)))


@pytest.mark.soak
def test_a_hundred_kills(tmp_path: Path) -> None:
    for at in range(10):
        (tmp_path / str(at)).mkdir()
        run_of(tmp_path / str(at), 10, seed=int.from_bytes(os.urandom(4)))
