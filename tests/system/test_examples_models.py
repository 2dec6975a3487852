"""The adult and movielens examples on the real sets, by the command line; and libsvm rows of a9a through `svm`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

A9A = """<flow xmlns="urn:penstock:flow:1" name="a9a">
  <param name="data" type="path"/>
  <node name="model">
    <input name="train" type="libsvm" path="${data}/a9a_123d_train.libsvm.gz"/>
    <input name="test" type="libsvm" path="${data}/a9a_123d_test.libsvm.gz"/>
    <process name="m" type="svm" from="train" label="label" keys="indices" weights="values"/>
    <process name="scored" type="predict" from="test" model="m"/>
    <process name="quality" type="evaluate" from="scored" label="label"/>
    <output name="metrics" type="json" from="quality" path="metrics.json"/>
  </node>
</flow>"""


def metrics(flow: Path, data: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", str(flow), "--set", f"data={data}", "--json"]
    if 'param name="out"' in flow.read_text():
        command += ["--set", f"out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)["metrics"]["model.quality"]
    return found


def copied(name: str, tmp_path: Path) -> Path:
    """The example beside a run store of its own."""
    folder = tmp_path / name
    folder.mkdir()
    for file in (EXAMPLES / name).glob("*.xml"):
        (folder / file.name).write_text(file.read_text())
    return folder / "flow.xml"


@pytest.mark.realdata
def test_adult_reaches_its_figure(realdata: Path, tmp_path: Path) -> None:
    found = metrics(copied("adult", tmp_path), realdata / "adult", tmp_path)
    assert found["rows"] == 16_281
    assert found["auc"] >= 0.920
    assert found["calibration"] == pytest.approx(1, abs=0.03)


@pytest.mark.realdata
def test_movielens_beats_a_hashed_regression_on_later_ratings(realdata: Path, tmp_path: Path) -> None:
    found = metrics(copied("movielens", tmp_path), realdata / "movielens-100k", tmp_path)
    assert found["rows"] == 10_000
    assert found["auc"] >= 0.720
    assert found["gauc"] >= 0.69


@pytest.mark.realdata
def test_a9a_by_a_linear_machine(realdata: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow.xml"
    flow.write_text(A9A)
    found = metrics(flow, realdata / "libsvm", tmp_path)
    assert found["rows"] == 16_281
    assert found["auc"] >= 0.895
    assert found["ece"] <= 0.03
