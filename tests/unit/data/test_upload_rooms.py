"""Temporary folders of uploads: one's own while alive, cleared by the next when dead."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from penstock.data.remote import append, live_files, replace
from penstock.data.stores import filesystem
from penstock.data.upload_rooms import UploadRoom

ROOM = "import os; from penstock.data.upload_rooms import UploadRoom; room = UploadRoom(); os._exit(9)"
APPEND = """
import sys
from pathlib import Path
from penstock.data.remote import append
for number in range(20):
    append(sys.argv[1], [(Path(sys.argv[2]), f"{sys.argv[3]}-{number}.csv")])
"""


def test_a_live_room_stays_and_a_dead_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    live = UploadRoom()
    (live.path / "file").write_text("mine")
    assert subprocess.run([sys.executable, "-c", ROOM]).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    other = UploadRoom()
    assert sorted(tmp_path.iterdir()) == sorted([live.path, other.path])
    for room in (live, other, other):
        room.leave()
    assert list(tmp_path.iterdir()) == []


def test_appends_of_two_processes_lose_nothing_from_the_listing(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "first.csv").write_text("a\n1\n")
    url = f"local://{tmp_path}/place"  # fsspec's own local files, which know nothing of listings
    replace(url, staging, "one")
    append(url, [(staging / "first.csv", "two.csv")])
    command = [sys.executable, "-c", APPEND, url, str(staging / "first.csv")]
    writers = [subprocess.Popen([*command, name]) for name in "xy"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    live = live_files(*filesystem(url))
    assert live is not None and len(live) == 42
