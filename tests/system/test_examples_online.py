"""`lr` and `fm` on the real sets, by the command line. Rates were chosen on held-out training rows (docs/models.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = pytest.mark.realdata

A9A = """<flow xmlns="urn:penstock:flow:1" name="a9a">
  <param name="data" type="path"/>
  <node name="model">
    <input name="train" type="libsvm" path="${data}/a9a_123d_train.libsvm.gz"/>
    <input name="test" type="libsvm" path="${data}/a9a_123d_test.libsvm.gz"/>
    <process name="m" type="lr" from="train" label="label" keys="indices" weights="values"/>
    <process name="scored" type="predict" from="test" model="m"/>
    <process name="quality" type="evaluate" from="scored" label="label"/>
    <output name="metrics" type="json" from="quality" path="metrics.json"/>
  </node>
</flow>"""

#: Numbers in steps and words as keys; as many words as the census has make pairs worth a cross.
ADULT = """<features xmlns="urn:penstock:features:1" name="adult_keys" seed="0">
  <slot name="age_step" id="1" fn="piecewise" from="age" bounds="quantile:20"/>
  <slot name="years_step" id="2" fn="piecewise" from="years" bounds="quantile:10"/>
  <slot name="hours_step" id="3" fn="piecewise" from="hours" bounds="quantile:10"/>
  <slot name="gain_step" id="4" fn="piecewise" from="gain" bounds="1, 3000, 4500, 5100, 7000, 10000, 20000"/>
  <slot name="loss_step" id="5" fn="piecewise" from="loss" bounds="1, 1500, 1800, 1950, 2200"/>
  <slot name="workclass_key" id="6" fn="hash" from="workclass"/>
  <slot name="marital_key" id="7" fn="hash" from="marital"/>
  <slot name="occupation_key" id="8" fn="hash" from="occupation"/>
  <slot name="relation_key" id="9" fn="hash" from="relation"/>
  <slot name="race_key" id="10" fn="hash" from="race"/>
  <slot name="sex_key" id="11" fn="hash" from="sex"/>
  <slot name="country_key" id="12" fn="hash" from="country"/>
  <slot name="education_key" id="13" fn="hash" from="education"/>
  <slot name="work_years" id="14" fn="combine" from="occupation years_step"/>
</features>"""


def ran(flow: Path, data: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", str(flow), "--set", f"data={data}", "--json"]
    if 'param name="out"' in flow.read_text():
        command += ["--set", f"out={folder / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)["metrics"]
    return found


def copied(name: str, file: str, folder: Path, changes: dict[str, str] | None = None) -> Path:
    """An example's flow beside a run store of its own, with some of its text changed."""
    for source in (EXAMPLES / name).glob("*.xml"):
        (folder / source.name).write_text(source.read_text())
    text = (folder / file).read_text()
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / file).write_text(text)
    return folder / file


@pytest.mark.parametrize(("flow", "auc", "logloss"), [("lr.xml", 0.772, 0.450), ("fm.xml", 0.768, 0.450)])
def test_criteo_from_raw_logs(realdata: Path, tmp_path: Path, flow: str, auc: float, logloss: float) -> None:
    data = next((realdata / "criteo-dac60k").glob("*.tsv.gz"))
    found = ran(copied("criteo", flow, tmp_path), data, tmp_path)
    quality, learnt = found["model.quality"], found["model.clicks"]
    assert quality["rows"] == 10_000
    assert quality["auc"] >= auc
    assert quality["logloss"] <= logloss
    assert quality["calibration"] == pytest.approx(1, abs=0.03)
    assert learnt["rows"] == 50_000
    assert learnt["progressive_auc"] == pytest.approx(0.755, abs=0.01)


def test_a9a(realdata: Path, tmp_path: Path) -> None:
    (tmp_path / "flow.xml").write_text(A9A)
    found = ran(tmp_path / "flow.xml", realdata / "libsvm", tmp_path)["model.quality"]
    assert found["rows"] == 16_281
    assert found["auc"] >= 0.900


def test_adult(realdata: Path, tmp_path: Path) -> None:
    flow = copied("adult", "flow.xml", tmp_path, {
        'type="gbdt" from="mapped" label="rich" trees="300" leaves="15"':
            'type="lr" from="mapped" label="rich" epochs="3"',
        'categorical="workclass_no education_no marital_no occupation_no relation_no race_no sex_no country_no"': "",
    })  # fmt: skip
    (tmp_path / "features.xml").write_text(ADULT)
    found = ran(flow, realdata / "adult", tmp_path)["model.quality"]
    assert found["rows"] == 16_281
    assert found["auc"] >= 0.905


@pytest.mark.parametrize(
    ("split", "rows", "auc"),
    [('by="time" column="seconds" at="0.9"', 10_000, 0.7175), ('by="random" at="0.8"', 0, 0.779)],
)
def test_movielens(realdata: Path, tmp_path: Path, split: str, rows: int, auc: float) -> None:
    flow = copied("movielens", "flow.xml", tmp_path, {
        'type="gbdt_lr" from="mapped" label="liked" leaves="15"':
            'type="lr" from="mapped" label="liked" alpha="0.1" epochs="4" columns="person film work sex kind decade'
            ' person_kind person_decade sex_film"',
        'by="time" column="seconds" at="0.9"': split,
    })  # fmt: skip
    found = ran(flow, realdata / "movielens-100k", tmp_path)["model.quality"]
    assert not rows or found["rows"] == rows
    assert found["auc"] >= auc
