"""`deep` through the command line: Criteo's example, and a run that is killed in the middle and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

FLOW = """<flow xmlns="urn:penstock:flow:1" name="clicks">
  <node name="model">
    <input name="rows" type="parquet" path="rows.parquet"/>
    <process name="m" type="deep" from="rows" label="label" columns="user x" model="wide_deep" dim="4" hidden="8"
             batch="64" deterministic="true" checkpoint_every="2000"/>
    <output name="bundle" type="model" from="m" path="out/model"/>
  </node>
</flow>"""


def run(flow: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", str(flow), "--json", *more]
    return subprocess.Popen(command, cwd=flow.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(process: subprocess.Popen[str]) -> dict[str, object]:
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    found: dict[str, object] = json.loads(said)
    return found


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    draws = np.random.default_rng(0)
    user, x = draws.integers(0, 5000, 40_000), draws.normal(size=40_000)
    label = draws.random(40_000) < 1 / (1 + np.exp(-np.sin(user) * 2 - x))
    rows = pl.DataFrame({"user": [[int(key)] for key in user], "x": x, "label": label})
    rows.write_parquet(made / "rows.parquet")
    (made / "flow.xml").write_text(FLOW)
    return made


def rows_of(bundle: Path) -> bytes:
    import onnx
    from onnx import numpy_helper

    from penstock.training.snapshots import Snapshot

    held = onnx.load(bundle / "dense.onnx").graph.initializer
    weights = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in held}
    values = Snapshot(bundle / "rows.snapshot", ["user"]).lookup("user", np.arange(5000))
    return values.tobytes() + b"".join(weights[name] for name in sorted(weights))


@pytest.mark.soak  # the trainer's own kills are in every run: tests/unit/training/deep/test_killed.py
def test_a_killed_run_is_resumed_to_the_bit(tmp_path: Path) -> None:
    undisturbed = folder(tmp_path, "undisturbed")
    done(run(undisturbed / "flow.xml"))
    killed = folder(tmp_path, "killed")
    process = run(killed / "flow.xml")
    until = time.monotonic() + 120
    while len(list(killed.rglob("cuts/*.cut"))) < 3:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:  # the node's worker too, which would outlive its runner
        one.kill()
    process.communicate()
    left = len(list(killed.rglob("cuts/*.cut")))
    assert left and not (killed / "out").exists()
    again = run(killed / "flow.xml", "--resume")
    said, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors[-3000:]
    (log,) = killed.rglob("attempt-2/events.ndjson")
    assert "going on at row" in log.read_text()
    assert json.loads(said)["status"] == "done"
    assert rows_of(killed / "out" / "model") == rows_of(undisturbed / "out" / "model")
    assert not list(killed.rglob("cuts/*.cut")), "what was kept goes when the node is done"


@pytest.mark.realdata
def test_deepfm_on_criteo(realdata: Path, tmp_path: Path) -> None:
    for file in (EXAMPLES / "criteo").glob("*.xml"):
        (tmp_path / file.name).write_text(file.read_text())
    data = realdata / "criteo-dac60k" / "criteo_dac_rows_00000_59999.tsv.gz"
    found = done(run(tmp_path / "deepfm.xml", "--set", f"data={data}"))
    metrics = found["metrics"]["model.quality"]  # type: ignore[index]
    assert metrics["rows"] == 10_000
    assert metrics["auc"] >= 0.768 and metrics["logloss"] <= 0.453
