"""`models:/` names in flows: resolved once a run, cached by digest, told as problems where they lead nowhere."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.registry import Registry

HEAD = '<flow xmlns="urn:penstock:flow:1" name="f">'
TRAIN = f"""{HEAD}
  <param name="trees" type="int" default="5"/>
  <node name="n">
    <input name="rows" type="csv" path="rows.csv" types="city:str"/>
    <process name="mapped" type="features" from="rows" map="features.xml" keep="label"/>
    <process name="m" type="gbdt_lr" from="mapped" label="label" trees="${{trees}}" leaves="4"/>
    <output name="bundle" type="model" from="m" path="model"/>
  </node>
</flow>
"""
FEATURES = """<features xmlns="urn:penstock:features:1" name="f">
  <slot name="city" id="1" fn="hash" from="city"/>
  <dense name="age_n" fn="normalize" from="age" mean="40" std="10"/>
</features>
"""
SCORE = f"""{HEAD}
  <param name="model" type="string" default="models:/ctr@live"/>
  <node name="n">
    <input name="rows" type="csv" path="rows.csv" types="city:str"/>
    <input name="m" type="model" path="${{model}}"/>
    <process name="one" type="predict" from="rows" model="${{model}}" score="one"/>
    <process name="two" type="predict" from="one" model="m" score="two"/>
    <process name="mapped" type="features" from="rows" plan="${{model}}"/>
    <output name="scored" type="json" from="two" path="scored.json"/>
    <output name="keys" type="parquet" from="mapped" path="keys.parquet"/>
  </node>
</flow>
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows, a flow that trains and one that scores; a registry and a cache of its own."""
    for name in ("PENSTOCK_REGISTRY", "PENSTOCK_MODEL_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    chance = random.Random(0)
    rows = [(chance.randint(18, 70), chance.choice("abc")) for _ in range(400)]
    lines = [f"{int(chance.random() < age / 90)},{age},{city}" for age, city in rows]
    (tmp_path / "rows.csv").write_text("\n".join(["label,age,city", *lines]) + "\n")
    for name, text in (("train.xml", TRAIN), ("features.xml", FEATURES), ("score.xml", SCORE)):
        (tmp_path / name).write_text(text)
    return tmp_path


def penstock(place: Path, *arguments: str, status: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", *arguments, "--json"], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr + done.stdout
    return json.loads(done.stdout)


def scores(place: Path) -> list[Mapping[str, float]]:
    return [json.loads(line) for line in (place / "scored.json").read_text().splitlines()]


def test_a_flow_follows_an_alias_and_its_cache_follows_the_bundle(place: Path) -> None:
    for trees in ("4", "8"):
        penstock(place, "flow", "run", "train.xml", "--set", f"trees={trees}")
        penstock(place, "models", "push", "model", "--name", "ctr", *(("--alias", "live") if trees == "4" else ()))
    first = penstock(place, "flow", "run", "score.xml")
    before = scores(place)
    assert all(row["one"] == row["two"] for row in before)
    assert [n["cached"] for n in first["nodes"]] == [False]
    assert [n["cached"] for n in penstock(place, "flow", "run", "score.xml")["nodes"]] == [True]
    fixed = penstock(place, "flow", "run", "score.xml", "--set", "model=models:/ctr/1")
    assert [n["cached"] for n in fixed["nodes"]] == [True], "the alias and its number are the same bundle"
    penstock(place, "models", "alias", "ctr/2", "live")
    moved = penstock(place, "flow", "run", "score.xml")
    assert [n["cached"] for n in moved["nodes"]] == [False]
    assert [row["one"] for row in scores(place)] != [row["one"] for row in before]


def test_what_a_name_cannot_mean_is_a_problem_of_its_line(place: Path) -> None:
    problems = penstock(place, "flow", "check", "score.xml", status=2)
    assert {p["code"] for p in problems} == {"REG005"}
    penstock(place, "flow", "run", "train.xml")
    penstock(place, "models", "push", "model", "--name", "ctr", "--alias", "canary")
    problems = penstock(place, "flow", "check", "score.xml", status=2)
    assert {(p["line"], p["code"]) for p in problems} == {(5, "REG003"), (6, "REG003"), (8, "REG003")}
    assert penstock(place, "flow", "check", "score.xml", "--set", "model=models:/ctr@canary") == []


def test_a_warm_start_from_the_registry_names_its_parent(place: Path) -> None:
    text = TRAIN.replace('type="gbdt_lr"', 'type="lr"').replace(
        ' trees="${trees}" leaves="4"', ' start="models:/ctr@live"'
    )
    (place / "first.xml").write_text(text.replace(' start="models:/ctr@live"', ""))
    (place / "warm.xml").write_text(text)
    penstock(place, "flow", "run", "first.xml")
    penstock(place, "models", "push", "model", "--name", "ctr", "--alias", "live")
    penstock(place, "flow", "run", "warm.xml")
    warm = penstock(place, "models", "push", "model", "--name", "ctr")
    shown = penstock(place, "models", "show", f"ctr/{warm['version']}")
    assert shown["lineage"]["parent"] == "models:/ctr/1"
    with Registry(place / "PENSTOCK_REGISTRY") as opened:
        assert opened.resolve("models:/ctr/2").lineage["flow"] == "f"
