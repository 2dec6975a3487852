"""The example behind docs/raw-keys.md runs, and draws what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "raw_keys"


def test_the_month_of_new_users_is_trained_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is an extra: make test installs it")
    size = ["--days", "10", "--impressions", "4096", "--arrivals", "300", "--processes", "1"]
    subprocess.run([sys.executable, EXAMPLE / "train.py", tmp_path / "figures.json", *size], check=True)
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert runs["evict"][-1]["rows"] + sum(day["evicted"] for day in runs["evict"]) >= runs["keep"][-1]["rows"]
    assert sum(day["evicted"] for day in runs["evict"]) > 0
    assert runs["cross5"][-1]["rows"] < runs["cross1"][-1]["rows"]
    subprocess.run([sys.executable, EXAMPLE / "pictures.py", tmp_path / "figures.json", tmp_path], check=True)
    assert "evicted after 7 days" in (tmp_path / "raw-keys-memory.svg").read_text()
    assert "user x category" in (tmp_path / "raw-keys-admission.svg").read_text()
