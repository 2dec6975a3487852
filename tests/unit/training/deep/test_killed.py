"""Killed at any instant and started again, until it is done: the bits of an undisturbed run, every sample once."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

ROWS = 24_000
TEST = Path(__file__).parent


#: Imports once (torch's optimizers import as much again when they are first used), then forks a trainer for each line
#: that it reads: tells its pid, and how it ended.
FORKING = """
import os, sys, traceback
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import learning, torch._dynamo
for line in sys.stdin:
    folder, rows, threads = line.split("|")
    pid = os.fork()
    if not pid:
        try:
            learning.main(Path(folder), int(rows), int(threads))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Trainers:
    """Trainers in processes of their own, one at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKING, str(TEST)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment,
        )  # fmt: skip
        self.pid = 0

    def start(self, folder: Path, threads: int) -> None:
        folder.mkdir(exist_ok=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{folder}|{ROWS}|{threads}\n".encode())
        self.pid = int(self.process.stdout.readline())

    def is_over(self) -> bool:
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def ended(self) -> int:
        """Wait for its end; its exit status."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def close(self) -> None:
        if not self.is_over() and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    made = Trainers()
    yield made
    made.close()


def finish(trainers: Trainers, folder: Path, threads: int) -> None:
    trainers.start(folder, threads)
    assert trainers.ended() == 0


def killed_until_done(trainers: Trainers, folder: Path, threads: int, kills: int, seed: int) -> int:
    """How many of the kills hit a run that was training, beyond its first checkpoint."""
    draws = random.Random(seed)
    hit = 0
    for _ in range(kills):
        before = newest(folder)
        trainers.start(folder, threads)
        wanted = before + draws.randint(1, 2)
        while not trainers.is_over() and newest(folder) < wanted:
            time.sleep(0.01)
        time.sleep(draws.random() * 0.05)
        if trainers.is_over():
            assert trainers.ended() == 0
            break
        os.kill(trainers.pid, signal.SIGKILL)
        assert trainers.ended() in (-signal.SIGKILL, 0)
        hit += newest(folder) > 0
    if not (folder / "done.npz").exists():
        finish(trainers, folder, threads)
    return hit


def newest(folder: Path) -> int:
    cuts = [int(path.name.split(".")[0]) for path in (folder / "cuts").glob("*.cut")]
    return max(cuts, default=0)


def everything(folder: Path) -> dict[str, bytes]:
    with np.load(folder / "done.npz") as held:
        return {name: held[name].tobytes() for name in held.files}


def run_of(trainers: Trainers, folder: Path, kills: int, seed: int) -> None:
    undisturbed = folder / "undisturbed"
    finish(trainers, undisturbed, 1)
    hit = killed_until_done(trainers, folder / "killed", 1, kills, seed)
    assert hit >= kills // 2, "most kills must hit a run in its middle"
    assert everything(folder / "killed") == everything(undisturbed)
    killed_until_done(trainers, folder / "threads", 2, max(2, kills // 3), seed)
    with np.load(folder / "threads" / "done.npz") as held:
        assert (held["uses"] == 2).all(), "two epochs: every sample acts twice"


def test_ten_kills(tmp_path: Path, trainers: Trainers) -> None:
    run_of(trainers, tmp_path, 10, seed=int.from_bytes(os.urandom(4)))


@pytest.mark.soak
def test_a_hundred_kills(tmp_path: Path, trainers: Trainers) -> None:
    for at in range(10):
        (tmp_path / str(at)).mkdir()
        run_of(trainers, tmp_path / str(at), 10, seed=int.from_bytes(os.urandom(4)))
