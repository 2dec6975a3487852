"""Live parameters: what a hundred thousand row updates a second cost the requests of the host that applies them.

A host with a deep bundle (26 look-ups of dim 16, 13 numbers, MLP 256-128-1) on one core follows a chain on a log.
Requests of one row come from the other core at 30 % of what one connection can have answered. Slices of seconds
without and with deltas take turns; a round is a slice with deltas over the mean of the two beside it, p95 each: goal
<= 1.3. Fixed work is timed on both cores between any two slices: a round in which its slowest twentieth took over 25
% longer than the best ever, or whose slices without deltas differ by over 25 %, is made again, three times the rounds
at most, and the steadiest count.

Deltas are of distinct random keys, every 250 ms, with dense weights once a second; a trainer's table published them
before, where the cost a changed row is measured. `ratio_of_medians` is over all slices of the rounds that count.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from statistics import median
from typing import Any

import harness
import numpy as np
import serving_bundle as bundles_of
import serving_net as net

from penstock.registry import bundles
from penstock.registry.chain import Publisher, records
from penstock.streams import Record, Topic, open_topic
from penstock.training.tables import Constant, EmbeddingTables, Sgd, Table

ROWS_A_SECOND, EVERY_S = 100_000, 0.25
LOAD = 0.3
SERVER, OTHERS = {0}, {1}
STEADY = 1.25
QUANTILES = (50, 95, 99)


def published(folder: Path, digest: str, plan: str, seconds: float) -> tuple[list[list[Record]], dict[str, float]]:
    """The records of so many seconds of deltas, delta by delta, and what publishing them cost."""
    made = EmbeddingTables(
        [Table("rows", net.DIM, Sgd(), 1.0, Constant(0.0))], dict.fromkeys(bundles_of.SLOT_NAMES, "rows")
    )
    draw = np.random.default_rng(7)
    keys = bundles_of.keys(np.repeat(np.arange(net.IDS)[:, None], net.SLOTS, axis=1))
    layers = {name: value for name, value in net.weights().items() if name != "table"}
    each = int(ROWS_A_SECOND * EVERY_S)
    spent, rows, size, deltas = 0.0, 0, 0, []
    with open_topic(f"log:{folder}/made") as topic:
        publisher = Publisher(topic, "m", 1, plan=plan, base=digest)
        publisher.track(made.native)
        for turn in range(int(seconds / EVERY_S)):
            chosen = draw.choice(keys.size, each, replace=False)
            grads = draw.normal(0, 0.01, (each, net.DIM)).astype(np.float32)
            made.update(bundles_of.SLOT_NAMES[0], np.ascontiguousarray(keys.reshape(-1)[chosen]), grads)
            began = time.perf_counter()
            dense = layers if turn % round(1 / EVERY_S) == 0 else None
            done = publisher.publish(made.native, dense=dense, positions={}, event_time_ms=turn)
            spent += time.perf_counter() - began
            rows, size = rows + done.rows, size + done.bytes
            found = [r for r in records(topic, 0, done.first, done.last + 1) if r.offset >= done.first]
            deltas.append(found)
        begin = list(records(topic, 0, topic.start(0), deltas[0][0].offset))
    deltas[0] = begin + deltas[0]
    return deltas, {"publish_us_a_row": 1e6 * spent / rows, "bytes_a_row": size / rows}


class Host:
    def __init__(self, folder: Path, bundle: Path, topic: str) -> None:
        (folder / "serving.toml").write_text(
            f'[models.m.versions]\n1 = "{bundle}"\n[models.m.live]\ntopic = "{topic}"\noverlay_mb = 1024\n'
            "[host]\ndrain_s = 0\n"
        )
        command = [sys.executable, "-m", "penstock.cli", "serve", str(folder / "serving.toml")]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, SERVER),
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("serving http="):
            raise SystemExit((folder / "log").read_text())
        host, port = line.split()[1].removeprefix("http=").split(":")
        self.connection = http.client.HTTPConnection(host, int(port))

    def ask(self, body: bytes) -> dict[str, Any]:
        self.connection.request("POST", "/v2/models/m/infer", body, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        said: dict[str, Any] = json.loads(reply.read())
        if reply.status != 200:
            raise SystemExit(f"error: the host said {said}")
        return said

    def close(self) -> None:
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def phase(host: Host, bodies: list[bytes], pace_s: float, seconds: float) -> list[float]:
    """Latencies of requests that come every `pace_s`, in ms; late ones wait their turn, and that counts."""
    found, began = [], time.perf_counter()
    for at in range(int(seconds / pace_s)):
        due = began + at * pace_s
        while (now := time.perf_counter()) < due:
            time.sleep(min(0.0002, due - now))
        host.ask(bodies[at % len(bodies)])
        found.append(1e3 * (time.perf_counter() - due))
    return found


def feed(topic: Topic, deltas: list[list[Record]], ends: threading.Event) -> None:
    began = time.perf_counter()
    for at, delta in enumerate(deltas):
        wait = began + at * EVERY_S - time.perf_counter()
        if ends.wait(max(0.0, wait)):
            return
        topic.append([r.value for r in delta], keys=[r.key for r in delta])


class Control:
    """Work of a fixed size, in pieces of a quarter of a millisecond: how fast and how undisturbed both cores are."""

    def __init__(self) -> None:
        self.block = bytes(range(256)) * 512
        self.best = float("inf")
        for _ in range(3):
            self.off()

    def off(self) -> float:
        """The slowest twentieth of pieces, of the slower core, over the best there ever was."""
        worst = 0.0
        for core in (SERVER, OTHERS):
            os.sched_setaffinity(0, core)  # of this thread alone
            spent = []
            for _ in range(200):
                began = time.perf_counter()
                zlib.crc32(zlib.crc32(self.block).to_bytes(4, "little") + self.block)
                spent.append(time.perf_counter() - began)
            worst = max(worst, float(np.quantile(spent, 0.95)))
        os.sched_setaffinity(0, OTHERS)
        self.best = min(self.best, worst)
        return worst / self.best


class Slices:
    """Slices without and with deltas, in turns, and what the machine did between them."""

    def __init__(self, host: Host, bodies: list[bytes], pace_s: float, seconds: float) -> None:
        self.host, self.bodies, self.pace_s, self.seconds = host, bodies, pace_s, seconds
        self.control = Control()
        self.before = self._idle()

    def _slice(self) -> list[float]:
        found = phase(self.host, self.bodies, self.pace_s, self.seconds)
        return [float(np.percentile(found, q)) for q in QUANTILES]

    def _idle(self) -> tuple[float, list[float]]:
        phase(self.host, self.bodies, self.pace_s, 0.5)  # what came last is applied
        return self.control.off(), self._slice()

    def round(self, topic: Topic, deltas: list[list[Record]]) -> tuple[float, dict[str, list[float]]]:
        """How unsteady it was (1: not at all), and the quantiles of the three slices."""
        ends = threading.Event()
        feeder = threading.Thread(target=feed, args=(topic, deltas, ends))
        (off, before), off_busy = self.before, self.control.off()
        feeder.start()
        busy = self._slice()
        ends.set()
        feeder.join()
        self.before = off_after, after = self._idle()
        apart = max(before[1], after[1]) / min(before[1], after[1])
        return max(off, off_busy, off_after, apart), {"before": before, "busy": busy, "after": after}


def judged(rounds: list[dict[str, list[float]]]) -> tuple[harness.Rounds, dict[str, float]]:
    """Values by case, one a round; and the ratios of medians over all slices."""
    found: dict[str, list[float]] = {}
    over: dict[str, float] = {}
    for at, q in enumerate(QUANTILES):
        idle = [(one["before"][at] + one["after"][at]) / 2 for one in rounds]
        busy = [one["busy"][at] for one in rounds]
        found[f"idle_p{q}_ms"], found[f"busy_p{q}_ms"] = idle, busy
        found[f"ratio_p{q}"] = [b / i for b, i in zip(busy, idle, strict=True)]
        over[f"p{q}"] = harness.figure(median(busy) / median(idle))
    return {"ours": found}, over


def main() -> None:
    options = harness.arguments(__doc__)
    seconds = 2.0 if options.quick else 3.0
    rounds = options.rounds if options.quick else 2 * options.rounds
    most = 3 * rounds if not options.quick else 2 * rounds
    data = harness.HERE / ".data" / "serving"
    data.mkdir(parents=True, exist_ok=True)
    bundle = bundles_of.deep_bundle(data, 3_000_000 if options.quick else 10_000_000)
    digest = bundles.digest_of_folder(bundle)
    os.sched_setaffinity(0, OTHERS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plan = str(bundles.read_manifest(bundle)["plan"])
        harness.say("publishing")
        deltas, costs = published(folder, digest, plan, seconds * most)
        frame = bundles_of.samples(256, seed=3).drop("label")
        bodies = [
            json.dumps({"inputs": [
                {"name": name, "datatype": "BYTES" if isinstance(value, str) else "FP64", "shape": [1], "data": [value]}
                for name, value in row.items()
            ]}).encode()
            for row in frame.iter_rows(named=True)
        ]  # fmt: skip
        with open_topic(f"log:{folder}/chain") as topic:
            host = Host(folder, bundle, topic.name)
            harness.say("until the snapshot was verified once")
            began, asked = time.perf_counter(), 0
            while time.perf_counter() - began < 3 * seconds or asked < 1000:
                host.ask(bodies[asked % len(bodies)])
                asked += 1
            spent = []
            for at in range(1000):
                began = time.perf_counter()
                host.ask(bodies[at % len(bodies)])
                spent.append(time.perf_counter() - began)
            slices = Slices(host, bodies, median(spent) / LOAD, seconds)
            each = round(seconds / EVERY_S)
            kept: list[tuple[float, dict[str, list[float]]]] = []
            for turn in range(most):
                kept.append(slices.round(topic, deltas[turn * each : (turn + 1) * each]))
                off, last = kept[-1]
                ratio = last["busy"][1] / (last["before"][1] + last["after"][1]) * 2
                steady = sum(off <= STEADY for off, _ in kept)
                harness.say(f"round {turn + 1}: p95 {ratio:.2f}x, off by {off:.2f}; {steady} of {rounds} steady")
                if steady >= rounds:
                    break
            made = len(kept) * each
            kept.sort(key=lambda one: one[0])
            kept = kept[:rounds]
            time.sleep(1)
            said = host.ask(bodies[0])["parameters"]
            if said["sequence"] != made:
                raise SystemExit(f"error: {made} deltas were sent, and the host is at {said}")
            host.close()
    found, over = judged([one for _, one in kept])
    document = harness.document(
        "live", "ms", found, versions={}, ratio_of_medians=over, requests_a_second=1 / slices.pace_s, deltas=made,
        spread={case: [harness.figure(f(of)) for f in (min, max)] for case, of in found["ours"].items()},
        off_by=[round(off, 2) for off, _ in kept], **costs,
    )  # fmt: skip
    harness.finish(document, options)


if __name__ == "__main__":
    main()
