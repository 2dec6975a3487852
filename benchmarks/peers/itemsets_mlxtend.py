"""mlxtend in the itemsets benchmark: `fpgrowth` over a table of booleans that is ready before the clock starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlxtend
import numpy as np
import pandas as pd
from mlxtend.frequent_patterns import association_rules, fpgrowth

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve

tables: dict[str, pd.DataFrame] = {}


def setup(question: Mapping[str, Any]) -> str:
    return str(mlxtend.__version__)


def answer(path: str, min_support: float, confidence: float, answer: str = "") -> Mapping[str, Any]:
    if path not in tables:
        held = np.load(path)
        table = np.zeros((len(held["offsets"]) - 1, int(held["size"])), dtype=bool)
        rows = np.repeat(np.arange(len(table)), np.diff(held["offsets"]))
        table[rows, held["items"]] = True
        tables[path] = pd.DataFrame(table)
    started = time.perf_counter()
    sets = fpgrowth(tables[path], min_support=min_support)
    sets_seconds = time.perf_counter() - started
    rules = association_rules(sets, metric="confidence", min_threshold=confidence)
    if answer:
        found = sets.assign(itemsets=[" ".join(map(str, sorted(s))) for s in sets["itemsets"]])
        found.to_csv(answer, index=False)
    return {"sets": sets_seconds, "rules": time.perf_counter() - started, "count": len(sets), "rule_count": len(rules)}


if __name__ == "__main__":
    serve(setup, answer)
