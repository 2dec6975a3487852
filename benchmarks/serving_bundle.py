"""Our side of the same network: a `deep` bundle whose ten million rows lie in a snapshot; and a GBDT+LR bundle.

Nothing is learnt: the bundle of a tiny training run gets the network's own layers and rows. Kept in benchmarks/.data.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import serving_net as net
import xxhash

from penstock.training.bundle import load
from penstock.training.deep.scorer import DENSE, ROWS, DeepScorer
from penstock.training.snapshots import write_snapshot
from penstock.training.tables import Constant, EmbeddingTables, Sgd, Table

SLOT_NAMES = [f"c{n}" for n in range(1, net.SLOTS + 1)]
NUMBERS = [f"i{n}" for n in range(1, net.DENSE + 1)]
RAW_IDS, RAW_NUMBERS = [n.upper() for n in SLOT_NAMES], [n.upper() for n in NUMBERS]
LOW_52 = (1 << 52) - 1
TREES = 200
TREE_ROWS = 20_000
#: Written when what is made here changes.
FORMAT = "2"


def text_of(number: int) -> str:
    """An id as a log has it: eight hex digits."""
    return f"{number * 2_654_435_761 & 0xFFFFFFFF:08x}"


@cache
def hashes() -> Any:
    """The low 52 bits of each id's hash."""
    return np.array([xxhash.xxh3_64_intdigest(text_of(n).encode()) & LOW_52 for n in range(net.IDS)], np.uint64)


def keys(ids: Any) -> Any:
    """The mapped keys of ids [rows, slots]: slot id << 52 | the hash of the text, as the plan makes them."""
    slots = np.arange(1, ids.shape[1] + 1, dtype=np.uint64) << np.uint64(52)
    return (hashes()[ids] | slots).astype(np.int64)


def deep_bundle(folder: Path, rows: int) -> Path:
    """The bundle with `rows` rows: those of the peers' table for each slot, the rest of keys that nobody asks for."""
    made = folder / f"deep-{rows}-{FORMAT}"
    if made.is_dir():
        return made
    work = folder / "making"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    slots = "".join(
        f'<slot name="{name}" id="{n}" fn="hash" from="{raw}"/>'
        for n, (name, raw) in enumerate(zip(SLOT_NAMES, RAW_IDS, strict=True), 1)
    )
    dense = "".join(
        f'<dense name="{name}" fn="log1p" from="{raw}"/>' for name, raw in zip(NUMBERS, RAW_NUMBERS, strict=True)
    )
    (work / "features.xml").write_text(
        f'<features xmlns="urn:penstock:features:1" name="bench" seed="0">{slots}{dense}</features>'
    )
    samples(256, seed=1).write_parquet(work / "rows.parquet")
    step = f'type="deep" model="wide_deep" from="mapped" label="label" dim="{net.DIM}" hidden="8"'
    bundle = load(_trained(work, step, 'map="features.xml" keep="label"'))
    files = work / "files"
    files.mkdir()
    net.without_table(files / DENSE)
    table = Table("rows", net.DIM, Sgd(), 1.0, Constant(0.0), expected_rows=rows)
    tables = EmbeddingTables([table], dict.fromkeys(SLOT_NAMES, "rows"))
    _fill(tables, rows)
    write_snapshot(tables, files / ROWS, plan=bundle.fingerprint)
    feeds = [
        {"name": "rows", "kind": "pooled", "slots": SLOT_NAMES, "pooling": "sum"},
        {"name": "numbers", "kind": "numbers", "slots": [], "pooling": ""},
    ]
    scorer = DeepScorer(
        files, feeds, SLOT_NAMES, NUMBERS, np.zeros(net.DENSE), np.ones(net.DENSE), [],
        dict.fromkeys(SLOT_NAMES, "rows"), "mlp",
    )  # fmt: skip
    replace(bundle, scorer=scorer).save(made)
    shutil.rmtree(work)
    return made


def _fill(tables: EmbeddingTables, rows: int) -> None:
    """A row becomes what it is to be by one step: rate 1, the gradient its negative, from zero."""
    values = net.weights()["table"]
    of_all = keys(np.repeat(np.arange(net.IDS)[:, None], net.SLOTS, axis=1))
    for number, name in enumerate(SLOT_NAMES):
        tables.update(name, np.ascontiguousarray(of_all[:, number]), -values)
    draw = np.random.default_rng(6)
    left = rows - net.SLOTS * net.IDS
    while left > 0:
        count = min(left, 1 << 18)
        others = draw.integers(1 << 58, 1 << 62, count)
        tables.update(SLOT_NAMES[0], others, draw.normal(0, 0.5, (count, net.DIM)).astype(np.float32))
        left -= count


def samples(rows: int, seed: int) -> pl.DataFrame:
    """Raw rows of which `net.samples(rows, seed)` are the mapped ones, with a label."""
    ids, numbers = net.samples(rows, seed)
    raw = {name: [text_of(int(n)) for n in ids[:, at]] for at, name in enumerate(RAW_IDS)}
    counts = np.rint(np.expm1(numbers.astype(np.float64)))
    raw.update({name: counts[:, at] for at, name in enumerate(RAW_NUMBERS)})
    label = (counts[:, :3].sum(axis=1) + ids[:, 0] % 7 > 63).astype(np.int64)
    return pl.DataFrame({"label": label, **raw})


def trees_bundle(folder: Path) -> Path:
    """GBDT+LR over the numbers, 200 trees."""
    made = folder / f"trees-{FORMAT}"
    if made.is_dir():
        return made
    work = folder / "growing"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    samples(TREE_ROWS, seed=2).select("label", *RAW_NUMBERS).write_parquet(work / "rows.parquet")
    step = f'type="gbdt_lr" from="rows" label="label" trees="{TREES}"'
    _trained(work, step, "").rename(made)
    shutil.rmtree(work)
    return made


def _trained(work: Path, step: str, mapping: str) -> Path:
    mapped = f'<process name="mapped" type="features" from="rows" {mapping}/>' if mapping else ""
    (work / "flow.xml").write_text(
        '<flow xmlns="urn:penstock:flow:1" name="bench"><node name="m"><input name="rows" type="parquet" '
        f'path="rows.parquet"/>{mapped}<process name="model" {step}/>'
        '<output name="o" type="model" from="model" path="out"/></node></flow>'
    )
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml", "--json"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: the bundle of the benchmark could not be trained\n{done.stderr}")
    assert json.loads(done.stdout)["status"]
    return work / "out"
