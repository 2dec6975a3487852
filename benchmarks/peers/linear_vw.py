"""Vowpal Wabbit's side of the linear benchmark: its own C++ driver over its cache or text, one question a line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vowpalwabbit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve


def setup(question: Mapping[str, Any]) -> str:
    return str(vowpalwabbit.__version__)


def answer(flags: str, text: str, cache: str = "", make: bool = False, predictions: str = "") -> Mapping[str, Any]:
    """One pass, predict then learn. With `cache` that is read instead of the text, or with `make` made from it."""
    if make:
        with contextlib.suppress(FileNotFoundError):
            Path(cache).unlink()
    parts = ["--quiet --loss_function logistic --no_stdin", flags]
    parts += [f"-d {text}"]
    parts += [f"--cache_file {cache}"] if cache else []
    parts += [f"-p {predictions} --link logistic"] if predictions else []
    started = time.process_time()
    workspace = vowpalwabbit.Workspace(" ".join(parts))  # runs over the data before it returns
    seconds = time.process_time() - started
    loss, rows = workspace.get_sum_loss(), workspace.get_weighted_examples()
    workspace.finish()
    return {"seconds": seconds, "logloss": loss / max(rows, 1), "rows": rows}


if __name__ == "__main__":
    serve(setup, answer)
