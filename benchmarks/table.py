"""The embedding table on one core: look-ups, updates and inserts of raw keys, against TFRA, FBGEMM and PyTorch.

Rows of 16 values with row-wise Adagrad (torch: Adagrad) in a table of 10 million (--quick: 1 million); keys uniform or
by Zipf's law (1.05), in batches of 1,024 to 65,536. Cases: `lookup_uniform lookup_zipf`; `update_uniform update_zipf`,
a look-up and an update of the same batch of present rows. New keys: `insert` is one update of a batch of them, which
admits each, initialises its row and its state and takes its first gradient step (TFRA: look-up with the initialiser,
step, upsert of values and sum, as for rows that are there); `insert_lookup` reads the batch first, as a training does
(TFRA's step has read it anyway); `insert_growing` begins with an empty table of no declared size; `insert_bare` is
TFRA's upsert of zeros without initialiser, gradient and state, against our whole update. In all other cases both know
the final size (our `expected_rows`, TFRA's `init_size`). A case's figure is that of batches of 4,096; `sizes` has each.
Ours is called through `EmbeddingTables`, from Python.

TFRA hashes (cuckoo) as we do; FBGEMM (CPU table-batched embeddings) and torch (EmbeddingBag(sparse=True)) get ids 0..n
and hash nothing. Rates are keys per second of processor time; everybody stays up, filled, and runs on the same core in
slices of less than a second. All four must have the same values after one update of known rows, before any is timed.

A control kernel (numpy gathers random rows) runs before and after each round. A round whose control is off by more
than 10 % from the best round's is measured again, at most three times; `control` lists what the rounds that count had.
"""

from __future__ import annotations

import os

# Before numpy is imported, and for the peers: everybody has one core.
os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np
from table_streams import LARGEST, Streams, timed

from penstock.training.tables import Constant, EmbeddingTables, RowwiseAdagrad, Table

HERE = Path(__file__).resolve().parent
DIM = 16
RATE = 0.01
SIZES = (1024, 4096, 16_384, LARGEST)
HEADLINE = 4096
EXPONENT = 1.05
DRAWN = 1 << 22
#: Rounds that one fresh table's inserts are spread over.
GROWING = 5
#: How far a round's control may be from the best one's.
STEADY = 0.1
TRIES = 3


def write_streams(folder: Path, rows: int) -> None:
    """Ranks as drawn, the raw key of each rank (splitmix64: nothing about it is regular), gradients."""
    rng = np.random.default_rng(1)
    np.save(folder / "ids.uniform.npy", rng.integers(0, rows, DRAWN))
    summed = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -EXPONENT)
    np.save(folder / "ids.zipf.npy", np.searchsorted(summed, rng.random(DRAWN) * summed[-1]))
    z = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    np.save(folder / "keys.npy", (z ^ (z >> np.uint64(31))).view(np.int64))
    np.save(folder / "grads.npy", rng.normal(0, 0.01, (LARGEST, DIM)).astype(np.float32))


class Ours:
    """Answers as the peers do, in this process."""

    def __init__(self, folder: Path) -> None:
        self.streams = Streams(str(folder))
        self.fresh: dict[str, EmbeddingTables] = {}
        self.tables = self.empty(self.streams.rows)
        for keys in self.streams.parts(0, self.streams.rows, 4096):
            self.tables.update("slot", keys, np.zeros((len(keys), DIM), dtype=np.float32))

    def empty(self, expected: int | None = None) -> EmbeddingTables:
        table = Table("table", DIM, RowwiseAdagrad(epsilon=1e-8), RATE, Constant(0.0), expected_rows=expected)
        return EmbeddingTables([table], {"slot": "table"}, threads=1)

    def ask(self, job: str, **question: Any) -> Mapping[str, Any]:
        streams = self.streams
        if job in ("values", "learn"):
            keys = np.array(question["keys"], dtype=np.int64)
            if job == "learn":
                self.tables.update("slot", keys, np.array(question["grads"], dtype=np.float32))
            return {"values": self.tables.lookup("slot", keys).tolist()}
        if job == "insert":
            first, count, batch = question["first"], question["count"], question["batch"]
            table = question["table"]
            if first == 0:
                self.fresh[table] = self.empty(None if table == "growing" else streams.rows)
            into = self.fresh[table]

            def add(keys: Any) -> None:
                if table == "lookup":
                    into.lookup("slot", keys)
                into.update("slot", keys, streams.grads[: len(keys)])

            return timed(streams.parts(first, count, batch), add, None)

        def one(keys: Any) -> None:
            self.tables.lookup("slot", keys)
            if job == "update":
                self.tables.update("slot", keys, streams.grads[: len(keys)])

        return timed(streams.batches(**question), one, question["seconds"])


Ask = Callable[..., Mapping[str, Any]]


def check(asks: Mapping[str, Ask], streams: Streams) -> None:
    """One known update, with a key that is there three times: everybody must read the same values afterwards.

    Row-wise Adagrad steps by the mean of the squares, torch's Adagrad by each square: where a gradient's elements are
    all alike the two are one.
    """
    rng = np.random.default_rng(2)
    ids = rng.choice(streams.rows, 500, replace=False)
    ids = np.concatenate([ids, ids[:1], ids[:1]])
    grads = np.repeat(rng.normal(0, 1, (len(ids), 1)), DIM, axis=1).astype(np.float32)
    found = {}
    for name, ask in asks.items():
        before = np.array(ask(job="values", ids=ids.tolist(), keys=streams.keys[ids].tolist())["values"])
        assert not before.any(), f"{name}: rows are not zeros at first"
        answer = ask(job="learn", ids=ids.tolist(), keys=streams.keys[ids].tolist(), grads=grads.tolist())
        found[name] = np.array(answer["values"])
    for name, values in found.items():
        far = float(np.abs(values - found["ours"]).max())
        assert far < 1e-6, f"{name} and ours differ by {far} after one update"


def control(rows: int) -> Callable[[], float]:
    """Rows a second that numpy gathers: memory and processor as the contenders use them."""
    table = np.zeros((rows, DIM), dtype=np.float32)
    places = np.random.default_rng(3).integers(0, rows, 200_000)
    out = np.empty((len(places), DIM), dtype=np.float32)

    def measure() -> float:
        best = math.inf
        for _ in range(3):
            started = time.process_time()
            np.take(table, places, axis=0, out=out)
            best = min(best, time.process_time() - started)
        return len(places) / best

    return measure


def one_round(ask: Ask, cases: list[str], turn: int, rows: int, seconds: float) -> dict[str, float]:
    """Keys a second of each case, in batches of `HEADLINE`; and of each size as `case/size`."""
    found: dict[str, float] = {}
    for case in cases:
        job, _, kind = case.partition("_")
        for number, size in enumerate(SIZES):
            if job == "insert":
                # Each round adds a fifth of the rows to a table that begins empty, a quarter of that in each size.
                count = rows // GROWING // len(SIZES)
                first = (turn % GROWING * len(SIZES) + number) * count
                answer = ask(job=job, table=kind or "known", first=first, count=count, batch=size)
            else:
                answer = ask(job=job, kind=kind, batch=size, seconds=seconds)
            found[f"{case}/{size}"] = float(answer["keys"]) / float(answer["seconds"])
        found[case] = found[f"{case}/{HEADLINE}"]
    return found


def steady_rounds(
    asks: Mapping[str, Ask], cases: Mapping[str, list[str]], rounds: int, rows: int, seconds: float
) -> tuple[harness.Rounds, list[float]]:
    """Everybody once a round, in turning order; a round with an unsteady control is measured again."""
    measure, names = control(rows), list(asks)
    best = max(measure() for _ in range(5))
    found: harness.Rounds = {name: {} for name in names}
    controls: list[float] = []
    for turn in range(rounds):
        kept: dict[str, dict[str, float]] = {name: {} for name in names}
        for attempt in range(TRIES):
            harness.say(f"round {turn + 1} of {rounds}" + (" again" if attempt else ""))
            before = measure()
            order = names[turn % len(names) :] + names[: turn % len(names)]
            # Inserts would go on from where the round's first try left them.
            wanted = {n: [c for c in cases[n] if not c.startswith("insert") or not attempt] for n in names}
            for name in order:
                kept[name].update(one_round(asks[name], wanted[name], turn, rows, seconds))
            for size in ("", *(f"/{size}" for size in SIZES)):
                # Its step has read the rows anyway.
                kept["tfra"][f"insert_lookup{size}"] = kept["tfra"][f"insert{size}"]
            worst = min(before, measure())
            best = max(best, worst)
            if worst >= best * (1 - STEADY):
                break
        controls.append(worst / best)
        for name in names:
            for case, value in kept[name].items():
                found[name].setdefault(case, []).append(value)
    return found, controls


def more(parser: Any) -> None:
    parser.add_argument("--rows", type=int, default=0, help="rows (default 10,000,000; with --quick 1,000,000)")


def main() -> None:
    options = harness.arguments(__doc__, more)
    rows = options.rows or (1_000_000 if options.quick else 10_000_000)
    seconds = 0.2 if options.quick else 0.5
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reading = ["lookup_uniform", "lookup_zipf"]
    updating = ["update_uniform", "update_zipf"]
    inserting = ["insert", "insert_growing", "insert_bare"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("PENSTOCK_BENCH_DIR")) as name:
        folder = Path(name)
        harness.say(f"filling tables of {rows:,} rows ...")
        write_streams(folder, rows)
        ours = Ours(folder)
        given = {"folder": name, "rate": RATE}
        peers = {}
        for peer, environment in (("tfra", "tfra"), ("fbgemm", "fbgemm"), ("torch", "fbgemm")):
            python = harness.peer_python(environment)
            peers[peer] = harness.Peer(peer, python, HERE / "peers" / f"table_{peer}.py", given)
        asks: dict[str, Ask] = {"ours": ours.ask, **{peer: each.ask for peer, each in peers.items()}}
        check(asks, ours.streams)
        cases = dict.fromkeys(asks, reading + updating)
        cases["ours"] = [*reading, *updating, *inserting, "insert_lookup"]
        cases["tfra"] = [*reading, *updating, *inserting]
        wrapper = peers["tfra"].ask(job="wrapper", kind="zipf", batch=4096, seconds=seconds)
        rounds, controls = steady_rounds(asks, cases, options.rounds, rows, seconds)
        for each in peers.values():
            each.close()
    middle = {n: {c: float(np.median(v)) for c, v in of.items() if "/" in c} for n, of in rounds.items()}
    rounds = {n: {c: v for c, v in of.items() if "/" not in c} for n, of in rounds.items()}
    found = harness.document(
        "table", "keys/s", rounds, {peer: each.version for peer, each in peers.items()},
        rows=rows, dim=DIM, control=[round(c, 3) for c in controls],
        sizes={n: {c: harness.figure(v) for c, v in of.items()} for n, of in middle.items()},
        tfra_wrapper_update_zipf_4096=harness.figure(wrapper["keys"] / wrapper["seconds"]),
    )  # fmt: skip
    harness.finish(found, options)


if __name__ == "__main__":
    main()
