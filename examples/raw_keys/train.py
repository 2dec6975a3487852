"""A month of clicks with new users every day: what admission and eviction do to memory and to AUC.

`python train.py figures.json` trains the same small model (a factorisation machine, Rendle 2010) in time order on the
same stream, once for each setting of a table, and writes what it measured each day: docs/raw-keys.md shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penstock.demo.visitors import Day, stream
from penstock.training.checkpoints import Checkpoints
from penstock.training.embedding import HashEmbedding, step_with
from penstock.training.metrics import auc
from penstock.training.tables import Adagrad, Count, EmbeddingTables, Eviction, Table, Uniform

BATCH = 4_096
DIM = 16
LIKE = Table("like", DIM, Adagrad(initial=1.0), learning_rate=0.1, init=Uniform(-0.02, 0.02))
TTL_DAYS = 7
#: Index lines that a sweep visits after each batch: bounded work, all lines several times a day.
SWEEP_LINES = 2_048
CATEGORIES = 16


@dataclass(frozen=True)
class Setting:
    """How the table `of` one slot differs, on how many days (None: all), and which slot is left out."""

    of: str = "user"
    options: Mapping[str, Any] = field(default_factory=dict)
    days: int | None = None
    without: str = ""


SETTINGS: Mapping[str, Setting] = {
    "keep": Setting(),
    "evict": Setting(options={"eviction": Eviction(ttl_s=TTL_DAYS * 86_400)}),
    "nobody": Setting(of="item", without="user"),  # what rows of users are worth
    "user2": Setting(options={"admission": Count(2)}, days=10),
    "user3": Setting(options={"admission": Count(3)}, days=10),
    "user5": Setting(options={"admission": Count(5)}, days=10),
    # A crossed slot, user x category: most of its keys are seen once or twice.
    "cross1": Setting("user_category", days=10),
    "cross2": Setting("user_category", {"admission": Count(2)}, days=10),
    "cross3": Setting("user_category", {"admission": Count(3)}, days=10),
    "cross5": Setting("user_category", {"admission": Count(5)}, days=10),
}


class FactorisationMachine(nn.Module):
    """First column of a row: its weight. The others: its factors."""

    def __init__(self, tables: EmbeddingTables) -> None:
        super().__init__()
        self.rows = HashEmbedding(tables)
        self.bias = nn.Parameter(torch.tensor(-1.5))

    def forward(self, keys: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rows = self.rows(keys).view(-1, len(self.rows.slots), DIM)
        weight, factors = rows[:, :, 0].sum(1), rows[:, :, 1:]
        crossed = (factors.sum(1).square() - factors.square().sum(1)).sum(1) / 2
        return self.bias + weight + crossed


def slots_of(day: Day, setting: Setting) -> dict[str, torch.Tensor]:
    """The day's columns as keys; `user_category` is crossed where a setting is of it."""
    columns = {name: column for name, column in day.columns.items() if name != setting.without}
    if setting.of == "user_category":
        columns["user_category"] = columns["user"] * CATEGORIES + columns["category"]
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def train(days: list[Day], setting: Setting) -> list[dict[str, float]]:
    """Each row is scored before it is learnt from, and each night a checkpoint is taken.

    A line a day: rows and bytes of the setting's table at its end, and the AUC.
    """
    torch.set_num_threads(1)
    torch.manual_seed(1)
    names = list(slots_of(days[0], setting))
    own = [replace(LIKE, name=name, **(setting.options if name == setting.of else {})) for name in names]
    tables = EmbeddingTables(own, {name: name for name in names}, threads=1)
    model = FactorisationMachine(tables)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    clock = [0]
    step_with(tables, optimizer, lambda: clock[0])
    told = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), tables)
        for day in days[: setting.days]:
            started_s, evicted = time.perf_counter(), 0
            scores = np.empty(len(day.clicked))
            labels, columns = torch.from_numpy(day.clicked.astype(np.float32)), slots_of(day, setting)
            for start in range(0, len(labels), BATCH):
                part = slice(start, start + BATCH)
                odds = model({name: column[part] for name, column in columns.items()})
                scores[part] = odds.detach().sigmoid().numpy()
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(odds, labels[part], reduction="sum").backward()
                clock[0] = int(day.time_s[part][-1])
                optimizer.step()
                evicted += tables.sweep(SWEEP_LINES)
            checkpoints.save({})
            checkpoints.prune()
            told.append(
                {
                    "day": day.number + 1,
                    "rows": tables.rows[setting.of],
                    "bytes": tables.bytes[setting.of],
                    "evicted": evicted,
                    "auc": auc(day.clicked.astype(np.float64), scores) or 0.0,
                    "seconds": time.perf_counter() - started_s,
                }
            )
    return told


@cache
def month(days: int, impressions: int, arrivals: int) -> list[Day]:
    return list(stream(days, impressions, arrivals))


def run(name: str, size: tuple[int, int, int]) -> list[dict[str, float]]:
    return train(month(*size), SETTINGS[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--impressions", type=int, default=300_000, help="a day")
    parser.add_argument("--arrivals", type=int, default=12_000, help="people who come for the first time, a day")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once")
    asked = parser.parse_args()
    size = (asked.days, asked.impressions, asked.arrivals)
    found: dict[str, Any] = {"impressions": asked.impressions, "arrivals": asked.arrivals, "ttl_days": TTL_DAYS}
    with ProcessPoolExecutor(asked.processes) as pool:
        runs = {name: pool.submit(run, name, size) for name in SETTINGS}
        days = month(*size)
        found["new_users"] = [day.new_users for day in days]
        found["users"] = [len(np.unique(day.columns["user"])) for day in days]
        found["best"] = [auc(day.clicked.astype(np.float64), day.chance) for day in days]
        found["runs"] = {}
        for name, running in runs.items():
            found["runs"][name] = running.result()
            last = found["runs"][name][-1]
            print(f"{name}: {last['rows']:,} rows, AUC of the last day {last['auc']:.4f}", file=sys.stderr, flush=True)
    asked.figures.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
