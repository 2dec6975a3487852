"""The main job, whole, as a user runs it: on simulated logs whose best possible AUC is known, and on real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.cli", "demo", "--out", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_the_demo_reaches_97_percent_of_the_best_possible_lift_and_reuses_what_it_made(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", "--loop", "0")
    assert done.returncode == 0, done.stderr
    words = dict(w.split("=") for w in done.stdout.splitlines()[-1].removeprefix("demo: ok ").split())
    assert set(words) == {"auc", "best", "seconds"}
    best, auc = float(words["best"]), float(words["auc"])
    assert 0.70 <= best <= 0.80
    assert auc - 0.5 >= 0.97 * (best - 0.5)
    for step in ("scored over REST", "scored over gRPC", "canary 2 at 20 %", "rolled back to 1", "host stopped"):
        assert step in done.stdout
    again = demo(tmp_path / "demo", "--json", "--loop", "10")
    assert again.returncode == 0, again.stdout + again.stderr
    document: dict[str, Any] = json.loads(again.stdout)
    assert [n["cached"] for n in document["run"]["nodes"]] == [True, True]
    assert round(document["auc"], 4) == auc
    assert document["served"]["rows"] == 10_000
    assert document["served"]["furthest"] <= 1e-6
    closed_loop(document["loop"], tmp_path / "demo")


def closed_loop(found: dict[str, Any], folder: Path) -> None:
    """The short form: every click has come back as a weight, and once tastes have changed that is worth something."""
    counts = found["counts"]
    assert counts["impressions"] >= 10_000 and counts["clicks"] > 1_000
    assert counts["learnt"] == counts["samples"] == counts["impressions"] + counts["clicks"]
    assert counts["quarantined"] == 0 and counts["deltas"] > 5
    assert 0 < found["fresh_p50"] <= found["fresh_p95"] <= found["fresh_most"]
    before, _, last = (phase["auc"] for phase in found["phases"])
    assert before["best"] > before["frozen"] > 0.7, "the model knew what visitors liked"
    assert last["frozen"] < last["loop"] < last["best"], "then they liked other things, and the loop learnt them"
    assert Path(found["report"]) == folder / "report.html"
    assert (folder / "report.html").read_text().count("<svg") == 4


def test_the_demo_on_criteo_s_format(tmp_path: Path, realdata: Path) -> None:
    data = realdata / "criteo-dac60k" / "criteo_dac_rows_00000_59999.tsv.gz"
    done = demo(tmp_path / "demo", "--data", str(data), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["best"] is None
    assert document["auc"] >= 0.760


def test_a_missing_file_is_a_wrong_request(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", "--data", str(tmp_path / "nothing.tsv"))
    assert done.returncode == 2
    assert "there is no file" in done.stderr
    assert "hint:" in done.stderr
