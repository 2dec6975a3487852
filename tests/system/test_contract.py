"""CONTRACT's own examples, run as a user runs them, and judged by what the page says alone."""

from __future__ import annotations

import csv
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xxhash

FLOW = """<flow xmlns="urn:penstock:flow:1" name="ctr" description="...">
  <param name="data" type="path" default="data"/>
  <node name="samples" engine="local" after="" retries="0" timeout_s="">
    <conf key="threads" value="2"/>
    <env name="TZ" value="UTC"/>
    <input   name="clicks" type="csv" path="${data}/clicks.csv"/>
    <process name="kept"   type="filter" from="clicks" where="price &gt;= 0 and city is not null"/>
    <process name="parts"  type="split" from="kept" by="time" column="ts" at="0.8"/>
    <output  name="train"  type="parquet" from="parts.train" path="out/train"/>
    <output  name="test"   type="parquet" from="parts.test"  path="out/test"/>
  </node>
  <node name="model" engine="local">
    <input   name="train" from="samples.train"/>
    <input   name="test"  from="samples.test"/>
    <process name="mapped" type="features" from="train" map="features.xml" keep="label user_id"/>
    <process name="m"      type="gbdt_lr" from="mapped" label="label" trees="20" leaves="8"/>
    <process name="scored" type="predict" from="test" model="m"/>
    <process name="quality" type="evaluate" from="scored" label="label" by="user_id"/>
    <output  name="bundle" type="model" from="m" path="out/model"/>
    <output  name="metrics" type="json" from="quality" path="out/metrics.json"/>
  </node>
</flow>
"""

FEATURES = """<features xmlns="urn:penstock:features:1" name="ctr" seed="0">
  <dict  name="cities" path="cities.txt"/>
  <define name="tags" fn="split" from="tags_raw" sep="|"/>
  <slot  name="user"     id="1" fn="hash"      from="user_id"/>
  <slot  name="cityid"   id="2" fn="pickcat"   from="city" dict="cities" unknown="0"/>
  <slot  name="price_b"  id="3" fn="piecewise" from="price" bounds="0, 10, 50"/>
  <slot  name="cityprice" id="4" fn="combine"  from="city price_b"/>
  <slot  name="tagcity"  id="5" fn="descartes" from="tags city"/>
  <dense name="logprice" fn="formula" expr="log10(price + 1)"/>
  <dense name="age_z"    fn="normalize" from="age" mean="38" std="12"/>
</features>
"""

CITIES = ["paris", "london", "tokyo", "zürich"]
METRICS = {"auc", "gauc", "logloss", "ne", "calibration", "ece", "pr_auc", "accuracy", "rows"}


def penstock(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def write_rows(path: Path, n: int = 3_000) -> list[dict[str, Any]]:
    """Clicks that follow city and price; some cities empty, some prices negative."""
    rng = random.Random(5)
    rows = []
    for i in range(n):
        city = rng.choice([*CITIES, "", "oslo"])
        price = round(rng.uniform(-5, 80), 2)
        odds = {"paris": 1.0, "tokyo": -1.0}.get(city, 0.0) + (1.0 if price > 50 else -0.5)
        rows.append(
            {
                "label": int(rng.random() < 1 / (1 + math.exp(-odds))),
                "user_id": f"u{rng.randrange(60)}",
                "city": city,
                "price": price,
                "age": rng.choice(["", rng.randrange(15, 70)]),
                "tags_raw": "|".join(rng.sample(["a", "b", "ç"], rng.randrange(1, 4))),
                "ts": f"2026-01-{1 + i * 28 // n:02d} {rng.randrange(24):02d}:00:00",
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("contract")
    (folder / "ctr.xml").write_text(FLOW, encoding="utf-8")
    (folder / "features.xml").write_text(FEATURES, encoding="utf-8")
    (folder / "cities.txt").write_text("\n".join(CITIES) + "\n", encoding="utf-8")
    rows = write_rows(folder / "data" / "clicks.csv")
    checked = penstock("flow", "check", "ctr.xml", "--json", cwd=folder)
    assert (checked.returncode, checked.stdout.strip()) == (0, "[]"), checked.stderr
    done = penstock("flow", "run", "ctr.xml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), rows


def test_the_run_document_has_the_promised_shape(finished: tuple[Path, dict[str, Any], list[dict[str, Any]]]) -> None:
    _, document, _ = finished
    assert {"run", "status", "seconds", "nodes", "metrics", "outputs"} <= set(document)
    assert [n["name"] for n in document["nodes"]] == ["samples", "model"]
    assert all({"name", "status", "seconds", "cached", "rows"} <= set(n) for n in document["nodes"])
    assert set(document["metrics"]["model.quality"]) >= METRICS
    assert set(document["outputs"]) == {"samples.train", "samples.test", "model.bundle", "model.metrics"}
    assert all(Path(p).exists() for p in document["outputs"].values())


def test_the_split_cuts_in_time(finished: tuple[Path, dict[str, Any], list[dict[str, Any]]]) -> None:
    folder, _, rows = finished
    kept = [r for r in rows if r["price"] >= 0 and r["city"] != ""]
    times = sorted(r["ts"] for r in kept)
    cut = times[math.ceil(0.8 * len(times))]  # the element at place ceil(share x n), counted from 0
    train, test = pl.read_parquet(folder / "out/train/*.parquet"), pl.read_parquet(folder / "out/test/*.parquet")
    assert len(train) + len(test) == len(kept)
    assert len(train) == sum(r["ts"] < cut for r in kept)
    assert train["ts"].max() < test["ts"].min()


def test_metrics_are_one_json_object_and_the_model_learnt(
    finished: tuple[Path, dict[str, Any], list[dict[str, Any]]],
) -> None:
    folder, document, _ = finished
    metrics = json.loads((folder / "out/metrics.json").read_text())
    assert metrics["auc"] > 0.6
    assert metrics["auc"] == pytest.approx(document["metrics"]["model.quality"]["auc"])


def test_a_second_run_is_cached(finished: tuple[Path, dict[str, Any], list[dict[str, Any]]]) -> None:
    folder, _, _ = finished
    again = penstock("flow", "run", "ctr.xml", "--json", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert [n["cached"] for n in json.loads(again.stdout)["nodes"]] == [True, True]


def test_features_explain_names_the_keys_the_page_promises(
    finished: tuple[Path, dict[str, Any], list[dict[str, Any]]],
) -> None:
    folder, _, _ = finished
    row = json.dumps({"user_id": "u7", "city": "tokyo", "price": 10.0, "age": 50, "tags_raw": "a|ç"})
    shown = penstock("features", "explain", "features.xml", "--row", row, "--json", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    entries = json.loads(shown.stdout)
    low = (1 << 52) - 1

    def digest(data: bytes) -> int:
        return xxhash.xxh3_64_intdigest(data, seed=0)

    def value(data: bytes) -> int:
        return digest(data) & low

    price_key = 3 << 52 | 2
    expected = {
        "user": [1 << 52 | value(b"u7")],
        "cityid": [2 << 52 | 3],
        "price_b": [price_key],
        "cityprice": [4 << 52 | value(digest(b"tokyo").to_bytes(8, "little") + price_key.to_bytes(8, "little"))],
        "tagcity": [
            5 << 52 | value(digest(tag.encode()).to_bytes(8, "little") + digest(b"tokyo").to_bytes(8, "little"))
            for tag in ("a", "ç")
        ],
    }
    found: dict[str, list[int]] = {}
    for entry in entries:
        if "slot" in entry:
            found.setdefault(entry["slot"], []).append(int(entry["key"]))
    assert found == expected
    dense = {e["dense"]: e["value"] for e in entries if "dense" in e}
    assert dense == {"logprice": pytest.approx(math.log10(11), rel=1e-6), "age_z": pytest.approx(1.0)}


def test_problems_are_printed_at_once_with_lines_and_nothing_is_written(tmp_path: Path) -> None:
    bad = FLOW.replace('from="kept" by', 'from="kpet" by').replace('type="gbdt_lr"', 'type="gbdt_rl"')
    (tmp_path / "bad.xml").write_text(bad, encoding="utf-8")
    (tmp_path / "features.xml").write_text(FEATURES, encoding="utf-8")
    (tmp_path / "cities.txt").write_text("\n".join(CITIES), encoding="utf-8")
    write_rows(tmp_path / "data" / "clicks.csv", 50)
    done = penstock("flow", "run", "bad.xml", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.xml:8: FLOW" in done.stderr
    assert "did you mean 'kept'?" in done.stderr
    assert "did you mean 'gbdt_lr'?" in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".penstock").exists()
