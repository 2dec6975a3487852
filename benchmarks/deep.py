"""Deep models on raw keys, samples/s: wide & deep and DeepFM, 26 slots x 16 and 13 numbers, MLP 256-128, two cores.

Every contender is a process that stays up, reads its own Parquet file (FuxiCTR an NPZ of it) ahead on a thread or as
its own loader does, and trains on batches of 4,096 in fp32. Ours has 64-bit keys; the peers have consecutive ids that
somebody else assigned, from the same samples in the same order. Rows step by Adagrad (rate .05), what is above them by
Adam (.001). `mlp` is the dense part alone with the gradient that it owes to what is below it, `mlp_fixed` without.

A question is at most a second of batches where one batch is not longer. A round asks those that are up together, ours
before each peer and after the last; a peer's ratio is against the mean of ours before and after it. A matrix product of
fixed size stands between any two questions: a round in which one took over 10 % longer than the quickest ever is asked
again, twice the rounds at most, and the steadiest rounds count.

`auc`: of held-out samples after one pass over the training file, where a pass takes a minute at most. `memory`: rows,
their state, and gradients as large as the table where a peer makes those; and the process's peak.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import deep_samples
import harness
import numpy as np
from deep_samples import Samples

HERE = Path(__file__).resolve().parent
BATCH = 4096
#: Peer -> (its environment, its script).
PEERS = {
    "mlp": ("deep", "torch"),
    "mlp_fixed": ("deep", "torch"),
    "torchrec": ("deep", "torch"),
    "torch": ("deep", "torch"),
    "deepctr": ("deep", "deepctr"),
    "fuxictr": ("deep", "fuxictr"),
    "keras": ("keras", "keras"),
}
#: Who is measured together: at 10 M keys the last three take gigabytes each, and all at once do not fit 24 GiB.
TOGETHER = (("mlp", "mlp_fixed", "torchrec", "torch"), ("deepctr",), ("fuxictr",), ("keras",))
SIZES = {"100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
SLICE_S = 0.8
PASS_S = 60.0
STEADY = 1.1


def more(parser: Any) -> None:
    parser.add_argument("--case", action="append", help="only this case, such as deepfm_10m; may be repeated")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this peer; may be repeated")
    parser.add_argument("--samples", type=int, default=0, help="training samples (default 1,048,576; quick 262,144)")


class Control:
    """A matrix product whose time says how fast the machine is at this moment."""

    def __init__(self) -> None:
        self.x = np.random.default_rng(0).random((1024, 1024), dtype=np.float32)
        self.best = float("inf")
        for _ in range(5):
            self.seconds()

    def seconds(self) -> float:
        started = time.perf_counter()
        for _ in range(4):
            self.x @ self.x
        took = time.perf_counter() - started
        self.best = min(self.best, took)
        return took


class Contender:
    """A process and how many of its batches make a question."""

    def __init__(self, name: str, model: str, samples: Samples) -> None:
        environment, script = PEERS.get(name, ("", "ours"))
        python = harness.peer_python(environment) if environment else Path(sys.executable)
        question = samples.document(name == "ours") | {"model": model, "peer": name}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
        self.name = name
        self.peer = harness.Peer(name, python, HERE / "peers" / f"deep_{script}.py", question, threads)
        self._seconds(1)
        self.batch_s = self._seconds(2) / 2
        self.samples = samples

    def _seconds(self, batches: int) -> float:
        return float(self.peer.ask(do="train", batches=batches)["seconds"])

    def auc(self) -> float | None:
        """None for who has nothing to learn keys with, and for who would take too long."""
        if self.name.startswith("mlp") or self.batch_s * self.samples.train / BATCH > PASS_S:
            return None
        return round(float(self.peer.ask(do="auc")["auc"]), 5)

    def speed(self) -> float:
        """Samples a second over a slice."""
        batches = max(1, int(SLICE_S / self.batch_s))
        self.batch_s = self._seconds(batches) / batches
        return BATCH / self.batch_s

    def memory(self) -> dict[str, int]:
        return {name: int(size) for name, size in self.peer.ask(do="memory").items()}


def steady_rounds(ours: Contender, peers: list[Contender], rounds: int) -> tuple[list[Any], list[float]]:
    """`rounds` rounds, each `[(ours around it, peer)]` by peer; and by how much the control was off in each."""
    control = Control()
    kept: list[tuple[float, dict[str, tuple[float, float]]]] = []
    for turn in range(2 * rounds):
        shift = turn % len(peers)
        controls: list[float] = []

        def asked(contender: Contender, controls: list[float] = controls) -> float:
            controls.append(control.seconds())
            return contender.speed()

        before = asked(ours)
        found = {}
        for peer in peers[shift:] + peers[:shift]:
            theirs, after = asked(peer), asked(ours)
            found[peer.name] = (mean((before, after)), theirs)
            before = after
        controls.append(control.seconds())
        kept.append((max(controls), found))
        kept.sort(key=lambda one: one[0])
        steady = sum(worst <= STEADY * control.best for worst, _ in kept)
        harness.say(f"  round {turn + 1}: {min(rounds, steady)} of {rounds} steady")
        if steady >= rounds:
            break
    return [found for _, found in kept[:rounds]], [round(worst / control.best, 2) for worst, _ in kept[:rounds]]


def measure(case: str, samples: Samples, names: list[str], rounds: int) -> dict[str, Any]:
    """One case: every contender set up, ranked, timed in turns, and let go; ours is up through all groups."""
    model = case.rsplit("_", 1)[0]
    found: dict[str, Any] = {"pairs": {}, "auc": {}, "control": {}, "memory": {}, "versions": {}}

    def begin(name: str) -> Contender:
        harness.say(f"{case}: {name} ...")
        one = Contender(name, model, samples)
        found["auc"][name] = one.auc()
        found["versions"][name] = one.peer.version
        return one

    def end(one: Contender) -> None:
        found["memory"][one.name] = one.memory()
        one.peer.close()

    ours = begin("ours")
    for together in TOGETHER:
        peers = [begin(name) for name in together if name in names]
        if peers:
            kept, found["control"][" ".join(one.name for one in peers)] = steady_rounds(ours, peers, rounds)
            for one in peers:
                found["pairs"][one.name] = [pairs[one.name] for pairs in kept]
                end(one)
    end(ours)
    harness.say(f"{case}: AUC {found['auc']}, of the truth {samples.best_auc:.5f}")
    return found


def document(cases: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The document of CONTRACT §4: a ratio is of a peer's slice and ours beside it."""
    versions: dict[str, str] = {}
    each: dict[str, harness.Rounds] = {}
    ours: dict[str, list[float]] = {}
    for case, found in cases.items():
        versions |= found["versions"]
        for peer, pairs in found["pairs"].items():
            of = each.setdefault(peer, {"ours": {}, peer: {}})
            of["ours"][case], of[peer][case] = ([pair[side] for pair in pairs] for side in (0, 1))
            ours.setdefault(case, []).extend(of["ours"][case])
    more["ours_version"] = versions.pop("ours")
    whole = harness.document("deep", "samples/s", {"ours": ours}, {}, **more)
    for peer, version in versions.items():
        part = harness.document("deep", "samples/s", each[peer], {peer: version})
        whole["peers"] |= part["peers"]
        whole["ratios"] |= part["ratios"]
    for kind in ("auc", "control", "memory"):
        whole[kind] = {case: found[kind] for case, found in cases.items()}
    return whole


def table(found: dict[str, Any], say: Callable[[str], None]) -> None:
    """For people: AUC and memory by case and contender."""
    for case, memory in found["memory"].items():
        say(f"{case}: the truth's AUC {found['best_auc'][case]:.5f}; control off by {found['control'][case]}")
        for name, sizes in memory.items():
            auc = found["auc"][case][name]
            rows, peak = sizes["table_bytes"] / 2**20, sizes["peak_bytes"] / 2**20
            say(f"  {name:<10} AUC {auc or '-':<8} rows and state {rows:,.0f} MiB, process at most {peak:,.0f} MiB")


def main() -> None:
    options = harness.arguments(__doc__, more)
    wanted = ["wide_deep_1m"] if options.quick else [f"{m}_{s}" for s in SIZES for m in ("wide_deep", "deepfm")]
    wanted = options.case or wanted
    peers = options.peer or list(PEERS)
    rows = options.samples or (1 << 18 if options.quick else 1 << 20)
    cases: dict[str, dict[str, Any]] = {}
    best: dict[str, float] = {}
    for environment in {PEERS[peer][0] for peer in peers}:
        harness.peer_python(environment)
    for size, keys in SIZES.items():
        here = [case for case in wanted if case.endswith(f"_{size}")]
        if not here:
            continue
        with tempfile.TemporaryDirectory(dir=os.environ.get("PENSTOCK_BENCH_DIR")) as folder:
            harness.say(f"{rows:,} samples of {keys:,} keys ...")
            samples = deep_samples.generate(Path(folder), keys, rows - rows % BATCH, 1 << 17)
            for case in here:
                cases[case] = measure(case, samples, peers, options.rounds)
                best[case] = round(samples.best_auc, 5)
    found = document(cases, best_auc=best, samples=rows)
    if not options.json:
        table(found, print)
    harness.finish(found, options)


if __name__ == "__main__":
    main()
