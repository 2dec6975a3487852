"""A small released model of each kind, topics of samples, and loops that run to the end of what is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from penstock.features.operators import Features
from penstock.streams import open_topic
from penstock.training.deep_operators import Deep
from penstock.training.online_operators import Fm, Lr

from .serving import Host

FEATURES = """<features xmlns="urn:penstock:features:1" name="live" seed="3">
  <slot name="user" id="1" fn="hash" from="user"/>
  <slot name="item" id="2" fn="hash" from="item"/>
  <dense name="price" fn="log1p" from="price"/>
</features>
"""
#: What becomes of them in a plan that is another one.
OTHERS = {"other features": ('seed="3"', 'seed="4"'), "weighted": ('from="item"', 'from="item" weight="price"')}
LR = {"alpha": "0.1", "seed": "5"}
#: Keys that do not come back leave these.
FORGETFUL = {"alpha": "0.1", "seed": "5", "evict_after": "400"}
DEEP = {"model": "wide_deep", "dim": "4", "hidden": "8", "batch": "128", "embedding_rate": "0.1", "rate": "0.01"}

KINDS: dict[str, tuple[Any, dict[str, str]]] = {
    "lr": (Lr, LR),
    "lr-forgetful": (Lr, FORGETFUL),
    "fm-forgetful": (Fm, {**FORGETFUL, "rank": "3", "spread": "0.1"}),
    "deep": (Deep, DEEP),
}


def rows(count: int, seed: int, turn: float = 0.0) -> pl.DataFrame:
    """Users and items with effects of their own; with `turn` they are others."""
    draws = np.random.default_rng(seed)
    user, item = draws.integers(0, 60, count), draws.integers(0, 30, count)
    price = draws.lognormal(2, 1, count)
    margin = 2 * np.sin(user * 1.7 + turn) + 1.5 * np.cos(item * 2.3 + turn) - 0.5
    label = (draws.random(count) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    names = {"user": [f"u{u}" for u in user], "item": [f"i{i}" for i in item]}
    return pl.DataFrame({**names, "price": price, "label": label})


def records(frame: pl.DataFrame, *, first: int = 0, begin_ms: int = 1_700_000_000_000) -> list[dict[str, Any]]:
    """Rows as records of the sample topic, a millisecond apart."""
    found = []
    for at, row in enumerate(frame.iter_rows(named=True), first):
        label = row.pop("label")
        time_ms = begin_ms + at
        own = {"_id": f"r{at}/0", "_kind": "impression", "_revision": 0, "_time_ms": time_ms, "_emit_ms": time_ms}
        found.append({**row, **own, "_label": label, "_weight": 1.0})
    return found


def append(address: str, samples: Sequence[dict[str, Any]]) -> None:
    with open_topic(address) as topic:
        for begin in range(0, len(samples), 5000):
            part = samples[begin : begin + 5000]
            values = [json.dumps(sample).encode() for sample in part]
            keys = [sample["_id"].encode() for sample in part]
            topic.append(values, keys=keys, times_ms=[sample["_emit_ms"] for sample in part])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, runner: Callable[[Path], Any]) -> Callable[[str], Path]:
    """The bundle of a kind (of `KINDS`), made once a session; after a comma comes one of `OTHERS`."""
    folder = tmp_path_factory.mktemp("models")
    run = runner(folder)

    @cache
    def make(kind: str) -> Path:
        kind, _, other = kind.partition(", ")
        operator, attrs = KINDS[kind]
        features = folder / f"{kind}{other}.xml"
        features.write_text(FEATURES.replace(*OTHERS[other]) if other else FEATURES)
        mapping = Features.model_validate({"from": "rows", "map": str(features), "keep": "label"})
        mapped = run(mapping, {"rows": rows(3000, 0)})
        roles = {"user": "slot", "item": "slot", "price": "dense"}
        step = operator.model_validate({"from": "rows", "label": "label", **attrs})
        made = run(step, {"rows": mapped.outputs[""]}, roles=roles, plan=mapped.infos[""].plan, threads=1)
        return Path(made.outputs[""].path)

    return make


@pytest.fixture
def host(tmp_path: Path, models: Callable[[str], Path]) -> Iterator[Host]:
    """A host of the model `lr` that follows the chain in the test's folder."""
    started = Host(tmp_path, models("lr"))
    yield started
    started.stop()


@pytest.fixture
def settings_file(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes a settings file: `settings_file("lr", "[train]\\nbatch = 100")`."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(tmp_path / "registry"))

    def write(
        kind: str, more: str = "", name: str = "loop", samples: str = "", model: str = "", start: Path | None = None
    ) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'[model]\nname = "ctr"\nstart = "{start or models(kind)}"\n{model}\n'
            f'[samples]\ntopic = "log:samples"\nquarantine = "{name}-bad.jsonl"\n{samples}\n'
            f'[checkpoints]\nfolder = "{name}-cuts"\n{more}\n'
        )
        return path

    return write
