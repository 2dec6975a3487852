"""What a contender of benchmarks/deep.py answers: batches trained, and how well it ranks what was held out.

A contender is an object with `version`, `table_bytes` (rows and their optimizer's state), `train(batches)`, which reads
and learns that many batches from where it stopped, and `score(ids, dense)`, which ranks samples.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from deep_reading import BATCH, once

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
from deep_samples import auc


def run(make: Callable[[Mapping[str, Any]], Any]) -> None:
    """Serve the contender that `make(first question)` gives."""
    held: dict[str, Any] = {}

    def setup(question: Mapping[str, Any]) -> str:
        before = resident()
        held["question"], held["contender"] = question, make(question)
        held["grown"] = resident() - before
        return str(held["contender"].version)

    def answer(do: str, batches: int = 0) -> Mapping[str, Any]:
        contender, question = held["contender"], held["question"]
        if do == "auc":
            contender.train(question["train_samples"] // BATCH)
            labels, scores = zip(*((y, contender.score(ids, d)) for ids, d, y in once(question["held"])), strict=True)
            return {"auc": auc(np.concatenate(labels), np.concatenate(scores).reshape(-1))}
        if do == "memory":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            return {"table_bytes": contender.table_bytes, "grown_bytes": held["grown"], "peak_bytes": peak}
        started = time.perf_counter()
        contender.train(batches)
        return {"seconds": time.perf_counter() - started}

    harness.serve(setup, answer)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
