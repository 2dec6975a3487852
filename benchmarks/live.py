"""Live parameters: what a hundred thousand row updates a second cost the requests of the host that applies them.

A host with a deep bundle (26 look-ups of dim 16, 13 numbers, MLP 256-128-1) follows a chain on a log. Requests of
one row come at 30 % of what one connection can have answered; phases without and with deltas alternate. Readers' p95
with deltas over without: goal <= 1.3. Deltas are of distinct random keys, every 250 ms, with dense weights once a
second; a trainer's table published them before, where the cost a changed row is measured.
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
from pathlib import Path
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
            f'[models.m.versions]\n1 = "{bundle}"\n[models.m.live]\ntopic = "{topic}"\n[host]\ndrain_s = 0\n'
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


def main() -> None:
    options = harness.arguments(__doc__)
    seconds = 4.0 if options.quick else 10.0
    data = harness.HERE / ".data" / "serving"
    data.mkdir(parents=True, exist_ok=True)
    bundle = bundles_of.deep_bundle(data, 3_000_000 if options.quick else 10_000_000)
    digest = bundles.digest_of_folder(bundle)
    os.sched_setaffinity(0, OTHERS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plan = str(bundles.read_manifest(bundle)["plan"])
        harness.say("publishing")
        deltas, costs = published(folder, digest, plan, seconds * options.rounds)
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
            began = time.perf_counter()
            for at in range(1000):
                host.ask(bodies[at % len(bodies)])
            pace_s = (time.perf_counter() - began) / 1000 / LOAD
            harness.say("until the snapshot was verified once")
            phase(host, bodies, pace_s, 3 * seconds)
            each = round(seconds / EVERY_S)
            rounds: dict[str, list[float]] = {}
            for turn in range(options.rounds):
                harness.say(f"round {turn + 1} of {options.rounds}")
                idle = phase(host, bodies, pace_s, seconds)
                ends = threading.Event()
                feeder = threading.Thread(target=feed, args=(topic, deltas[turn * each : (turn + 1) * each], ends))
                feeder.start()
                busy = phase(host, bodies, pace_s, seconds)
                ends.set()
                feeder.join()
                phase(host, bodies, pace_s, 1.0)
                for name, of in (("idle", idle), ("busy", busy)):
                    for q in (50, 95, 99):
                        rounds.setdefault(f"{name}_p{q}_ms", []).append(float(np.percentile(of, q)))
                said = (f"{name} p95 {rounds[f'{name}_p95_ms'][-1]:.2f} ms" for name in ("idle", "busy"))
                harness.say("  " + ", ".join(said))
                for q in (50, 95, 99):
                    ratio = rounds[f"busy_p{q}_ms"][-1] / rounds[f"idle_p{q}_ms"][-1]
                    rounds.setdefault(f"ratio_p{q}", []).append(ratio)
            time.sleep(1)
            at = host.ask(bodies[0])["parameters"]
            applied = {"generation": at["generation"], "sequence": at["sequence"], "deltas": each * options.rounds}
            host.close()
    found = {"ours": rounds}
    document = harness.document(
        "live", "ms", found, versions={}, requests_a_second=1 / pace_s, applied=applied, **costs
    )
    harness.finish(document, options)


if __name__ == "__main__":
    main()
