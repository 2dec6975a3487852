"""Looking strings up in a dictionary: look-ups/s on one core, against Rust's HashMap<String, u32> and Python's dict.

10 million values of 12 to 28 bytes (--quick: 1 million), asked for in random order, a tenth of the questions unknown.
`single` asks one value at a time; `batch` is how `pickcat` asks, 2,048 at a time (the peers have only one at a time).
The sums of the indices found are compared before anything is timed. Besides: seconds to compile the text file (each
peer: to build its table from it), milliseconds until a second process is ready, bytes an entry beyond the value's own.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np

from penstock import native

ROOT = harness.HERE.parent
BINARY = ROOT / "target" / "release" / "examples" / "dictionary"
CASES = ("single", "batch")


def build_binary() -> None:
    harness.say("building the native contenders ...")
    command = ["cargo", "build", "--release", "--quiet", "-p", "penstock-python", "-p", "penstock-features"]
    subprocess.run([*command, "--example", "dictionary"], cwd=ROOT, check=True)


def generate(folder: Path, entries: int, asked: int) -> tuple[Path, Path]:
    """The values, a line each, and the questions."""
    rng = np.random.default_rng(11)
    ids = rng.permutation(entries * 3)[: entries + asked // 10]
    names = [f"item:{(i * 2654435761) % 2**32:08x}:{'x' * (i % 15)}{i}" for i in ids.tolist()]
    known, unknown = names[:entries], names[entries:]
    chosen = rng.integers(0, entries, asked - len(unknown)).tolist()
    questions = [known[i] for i in chosen] + unknown
    order = rng.permutation(len(questions)).tolist()
    source, queries = folder / "values.txt", folder / "queries.txt"
    source.write_text("\n".join(known) + "\n")
    queries.write_text("\n".join(questions[i] for i in order) + "\n")
    return source, queries


class PythonDict:
    """`dict.get` over the same questions, in this process."""

    version = platform.python_version()

    def __init__(self, source: Path, queries: Path) -> None:
        start = time.perf_counter()
        with source.open() as lines:
            self.table = {line.rstrip("\n"): i for i, line in enumerate(lines, 1)}
        self.build_s = time.perf_counter() - start
        self.queries = queries.read_text().splitlines()

    def ask(self, case: str) -> dict[str, float]:
        get = self.table.get
        start = time.perf_counter()
        found = sum([get(query, 0) for query in self.queries])
        return {"rate": len(self.queries) / (time.perf_counter() - start), "found": found}


def rates(ask: Callable[..., dict[str, Any]]) -> Callable[[], dict[str, float]]:
    return lambda: {case: float(ask(case=case)["rate"]) for case in CASES}


def ready_ms(compiled: Path, value: str) -> float:
    """From `open` to the first answer, in a process that has never seen the file."""
    script = (
        "import sys, time; from penstock import native; start = time.perf_counter(); "
        "found = native.Dictionary.open(sys.argv[1]).get(sys.argv[2]); "
        "print((time.perf_counter() - start) * 1e3); assert found == 1"
    )
    command = [sys.executable, "-c", script, str(compiled), value]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    options = harness.arguments(__doc__)
    entries, asked = (1_000_000, 500_000) if options.quick else (10_000_000, 2_000_000)
    build_binary()
    with tempfile.TemporaryDirectory(prefix="penstock-dictionary-") as name:
        folder = Path(name)
        harness.say(f"writing {entries:,} values")
        source, queries = generate(folder, entries, asked)
        compiled = folder / "compiled"
        paths = {"source": str(source), "queries": str(queries), "compiled": str(compiled)}
        ours = harness.Peer("ours", BINARY, folder, {"kind": "ours", **paths})
        standard = harness.Peer("hashmap", BINARY, folder, {"kind": "hashmap", **paths})
        python = PythonDict(source, queries)
        sums = {
            n: {c: c_ask(case=c)["found"] for c in CASES}
            for n, c_ask in (("ours", ours.ask), ("hashmap", standard.ask), ("dict", python.ask))
        }
        if len({found for cases in sums.values() for found in cases.values()}) != 1:
            raise SystemExit(f"error: the contenders found different indices: {json.dumps(sums)}")

        rounds = harness.alternate(
            {"ours": rates(ours.ask), "hashmap": rates(standard.ask), "dict": rates(python.ask)}, options.rounds
        )
        ours.close()
        standard.close()

        start = time.perf_counter()
        native.Dictionary.compile(source, compiled)
        compile_s = time.perf_counter() - start
        overhead = (compiled.stat().st_size - (source.stat().st_size - entries)) / entries
        with source.open() as lines:
            first = next(lines).rstrip("\n")
        rust = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
        found = harness.document(
            "dictionary",
            "look-ups/s",
            rounds,
            versions={"hashmap": f"Rust {rust}", "dict": f"Python {python.version}"},
            entries=entries,
            compile_s=harness.figure(compile_s),
            dict_build_s=harness.figure(python.build_s),
            ready_ms=harness.figure(ready_ms(compiled, first)),
            overhead_bytes_per_entry=harness.figure(overhead),
        )
        harness.finish(found, options)


if __name__ == "__main__":
    main()
