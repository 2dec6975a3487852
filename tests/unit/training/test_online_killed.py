"""`lr` and `fm`, killed at any instant and started again until they are done: the bits of an undisturbed run."""

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

SCRIPT = Path(__file__).with_name("online_learning.py")


def start(folder: Path, how: tuple[str, str, int]) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, how)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def finish(run: subprocess.Popen[bytes]) -> None:
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said.decode()[-3000:]


def newest(folder: Path) -> int:
    return max((int(path.name.split(".")[0]) for path in folder.glob("kept/cuts/*.cut")), default=0)


def killed_until_done(folder: Path, how: tuple[str, str, int], kills: int, seed: int) -> int:
    """How many of the kills hit a run that had cuts to go on from and was not done."""
    draws = random.Random(seed)
    hit = 0
    for _ in range(kills):
        before = newest(folder)
        run = start(folder, how)
        wanted = before + draws.randint(1, 12)
        while run.poll() is None and newest(folder) < wanted:
            time.sleep(0.001)
        time.sleep(draws.random() * 0.02)
        if run.poll() is not None:
            finish(run)
            return hit
        run.send_signal(signal.SIGKILL)
        run.communicate()
        hit += newest(folder) > 0 and not (folder / "done.npz").exists()
    finish(start(folder, how))
    return hit


def everything(folder: Path) -> dict[str, bytes]:
    with np.load(folder / "done.npz") as held:
        return {name: held[name].tobytes() for name in held.files}


@pytest.mark.parametrize(("type_", "valid"), [("lr", "no"), ("fm", "valid")])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, type_: str, valid: str) -> None:
    finish(start(tmp_path / "undisturbed", (type_, valid, 1)))
    hit = killed_until_done(tmp_path / "killed", (type_, valid, 2), 4, seed=int.from_bytes(os.urandom(4)))
    assert hit >= 2, "most kills must hit a run in its middle"
    assert everything(tmp_path / "killed") == everything(tmp_path / "undisturbed")


@pytest.mark.soak
def test_forty_kills(tmp_path: Path) -> None:
    for at in range(10):
        (tmp_path / str(at)).mkdir()
        test_a_killed_run_goes_on_to_the_same_bits(
            tmp_path / str(at), ("lr", "fm")[at % 2], ("no", "valid")[at // 2 % 2]
        )
