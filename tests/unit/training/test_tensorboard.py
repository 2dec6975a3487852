"""Event files that TensorBoard itself reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import PenstockError, RequestError
from penstock.training.tensorboard import ScalarLog

pytest.importorskip("tensorboardX", reason="an extra: make test installs it")


def read(folder: Path) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_reads_every_value_at_its_step(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "run" / "tensorboard")
    for step in range(0, 3_000_000_000, 1_000_000_000):
        log.add(step, {"train/auc": step / 4e9, "slot/größe/missing": 0.25, "undefined": None})
    log.close()
    found = read(log.folder)
    assert sorted(found.Tags()["scalars"]) == ["slot/größe/missing", "train/auc"]
    assert [(e.step, e.value) for e in found.Scalars("train/auc")] == [(0, 0.0), (10**9, 0.25), (2 * 10**9, 0.5)]


def test_what_a_killed_run_wrote_past_its_checkpoint_is_left_out(tmp_path: Path) -> None:
    """Both files are there although the two runs began within a second of each other."""
    killed = ScalarLog(tmp_path)
    for step in range(10):
        killed.add(step, {"loss": 1.0})
    killed.close()
    resumed = ScalarLog(tmp_path, resume_step=6)
    for step in range(6, 12):
        resumed.add(step, {"loss": 2.0})
    resumed.close()
    assert len(list(tmp_path.iterdir())) == 2
    found = read(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(s, 1.0 if s < 6 else 2.0) for s in range(12)]


def test_a_run_that_is_killed_leaves_what_was_flushed(tmp_path: Path) -> None:
    """And an event cut in the middle does not keep TensorBoard from those before it."""
    script = """
import os, sys
from penstock.training import tensorboard
tensorboard.FLUSH_EVERY_S = 0
log = tensorboard.ScalarLog(sys.argv[1])
for step in range(5):
    log.add(step, {"loss": step})
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert [e.step for e in read(tmp_path).Scalars("loss")] == [0, 1, 2, 3]


def test_no_more_room_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    """A file that may not grow, as on a full disk: it neither hangs nor loses the values in silence."""
    script = """
import resource, sys
from penstock.errors import PenstockError
from penstock.training import tensorboard
tensorboard.FLUSH_EVERY_S = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = tensorboard.ScalarLog(sys.argv[1])
try:
    for step in range(100):
        log.add(step, {"loss": step})
except PenstockError as why:
    print(why, flush=True)
    import os; os._exit(3)
"""
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3, ran.stderr
    assert f"the TensorBoard file in {tmp_path} cannot be written: File too large" in ran.stdout
    assert "or train without TensorBoard files" in ran.stdout


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PenstockError, match=r"cannot be written"):
        ScalarLog(tmp_path / "file" / "logs")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(RequestError, match=r"need tensorboardX") as told:
        ScalarLog(tmp_path)
    assert told.value.hint == "pip install 'penstock[deep]'"
