"""Serving hosts on one core: requests per CPU-second at their peak, latency at half of it, memory, start-up.

26 ids x 16 and 13 numbers, MLP 256-128-1 in ONNX Runtime with one thread, 1 and 100 rows a request, JSON and binary.
Ours looks its rows up in a snapshot of ten million (--quick: three); the peers gather from a table of 100,000 inside of
their graph. Every server is pinned to one core and the load to the other; all scores are compared before any is timed.

`rowsN_FORM_rps_per_cpu`: requests answered per second of processor time of the server and its children, kernel
included, with 16 connections that always wait for an answer. `rows100_overhead`: microseconds of it a binary request
(JSON where a server has nothing else) beyond the bare ONNX run in a process that does nothing else. `trees1_json_...`:
a GBDT+LR model of 200 trees against FastAPI with LightGBM. `latency` (not in the ratios): an open loop at half of each
one's own peak, from the moment that a request was meant to be sent. `raw`: ours with raw columns, mapped by its plan.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import numpy as np
import serving_bundle
import serving_net as net
from serving_servers import SERVER_CORE, Load, Server
from serving_wire import Wire

HERE = Path(__file__).resolve().parent
DATA = HERE / ".data" / "serving"
ROWS, FORMS = (1, 100), ("json", "binary")
#: Different requests that are sent in turn: their rows do not stay in a cache.
REQUESTS = 256
CONNECTIONS = 16
V2 = Wire("v2", dict.fromkeys(FORMS, "/v2/models/net/infer"))


@dataclass(frozen=True)
class Peer:
    """`package`: whose version is told. `env`: what its processes need beside."""

    package: str
    wire: Wire
    quick: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


PLAIN = Wire("plain", {"json": "/json", "binary": "/binary"})
PEERS = {
    "fastapi": Peer("fastapi", PLAIN, quick=True),
    "mlserver": Peer("mlserver", Wire("v2", {"json": "/v2/models/net/infer"}), quick=True),
    # Its Python stub loads libpython by name, and must find that of the environment's interpreter.
    "triton": Peer("nvidia-pytriton", V2, quick=True, env={"LD_LIBRARY_PATH": os.path.join(sys.base_prefix, "lib")}),
    "bentoml": Peer("bentoml", PLAIN),
    "ray": Peer("ray", PLAIN, env={"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}),
    "litserve": Peer("litserve", Wire("plain", {"json": "/json"})),
}
#: Who has the GBDT+LR model, and where.
TREES = {"ours": Wire("v2", {"json": "/v2/models/trees/infer"}), "fastapi": Wire("plain", {"json": "/trees"})}
Tensors = Mapping[str, Any]


def mapped(rows: int, seed: int) -> Tensors:
    ids, dense = net.samples(rows, seed)
    return {"mapped.keys": serving_bundle.keys(ids)[:, :, None], "mapped.dense": dense}


def raw(rows: int, seed: int) -> Tensors:
    frame = serving_bundle.samples(rows, seed).drop("label")
    return {name: np.array(frame[name].to_list(), dtype=object if name[0] == "C" else float) for name in frame.columns}


def numbers(rows: int, seed: int) -> Tensors:
    return {name: column for name, column in raw(rows, seed).items() if name[0] == "I"}


def plain(rows: int, seed: int) -> Tensors:
    ids, dense = net.samples(rows, seed)
    return {"ids": ids, "dense": dense}


def start_ours(folder: Path, deep: Path, trees: Path) -> Server:
    config = folder / "serving.toml"
    config.write_text(f'[models.net.versions]\n1 = "{deep}"\n[models.trees.versions]\n1 = "{trees}"\n')
    command = [sys.executable, "-m", "penstock.cli", "serve", str(config)]
    probe = V2.request("binary", mapped(1, 0))
    return Server("ours", V2, command, probe, folder / "ours.log", address=_address)


def _address(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    line = process.stdout.readline()
    return int(line.split("http=")[1].split()[0].rpartition(":")[2])


def start_peer(name: str, python: Path, folder: Path) -> Server:
    peer = PEERS[name]
    command = [str(python), str(HERE / "peers" / f"serving_{name}.py"), "{port}", str(folder)]
    return Server(name, peer.wire, command, peer.wire.request("json", plain(1, 0)), folder / f"{name}.log", peer.env)


def check(servers: Sequence[Server], bare: Any) -> None:
    """Everybody gives the scores of the bare graph, in every form, on rows that nobody has seen."""
    for rows in (1, 7, 100):
        wanted = bare(plain(rows, 90 + rows))
        for server in servers:
            forms = [raw, mapped] if server.name == "ours" else [plain]
            for form in server.wire.paths:
                for tensors in forms:
                    found = server.scores(form, tensors(rows, 90 + rows)).reshape(-1)
                    far = float(np.abs(found - wanted).max())
                    assert far < 1e-5, f"{server.name} {form} {tensors.__name__}: {far} from the bare graph"
    grown = [server for server in servers if server.name in TREES]
    for seed in range(20):
        asked = numbers(1, seed)
        found = [float(_of_trees(server, asked)) for server in grown]
        assert max(found) - min(found) < 1e-6, f"trees: {found}"


def _of_trees(server: Server, tensors: Tensors) -> Any:
    wire = TREES[server.name]
    status, headers, body = server.ask(wire.request("json", tensors))
    assert status == 200, f"{server.name} trees: {status} {body[:500]!r}"
    return wire.scores("json", headers, body)[0]


class Bare:
    """The graph in a process that does nothing else, on the servers' core: the floor."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(folder / "gather.onnx", options, providers=["CPUExecutionProvider"])

    def __call__(self, tensors: Tensors) -> Any:
        return self.session.run(["score"], dict(tensors))[0]

    def cpu_us(self, rows: int) -> float:
        """Processor time of a run."""
        given = [dict(plain(rows, seed)) for seed in range(REQUESTS)]
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {SERVER_CORE})
        try:
            before = os.times()
            for _ in range(3):
                for each in given:
                    self.session.run(["score"], each)
            after = os.times()
        finally:
            os.sched_setaffinity(0, own)
        return (after.user + after.system - before.user - before.system) * 1e6 / (3 * REQUESTS)


def _stages(server: Server) -> dict[str, tuple[float, float]]:
    """Stage of the model `net` -> (seconds, requests) since the host began."""
    _, _, body = server.ask(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    found: dict[str, dict[str, float]] = {}
    for what, labels, value in re.findall(r"^penstock_stage_seconds_(sum|count){(.*)} (\S+)$", body.decode(), re.M):
        stage = re.search(r'stage="(\w+)"', labels)
        if stage and 'model="net"' in labels:
            found.setdefault(stage[1], {})[what] = float(value)
    return {stage: (each["sum"], each["count"]) for stage, each in found.items()}


class Bench:
    def __init__(self, servers: Sequence[Server], load: Load, bare: Bare, seconds: float) -> None:
        self.servers, self.load, self.bare, self.seconds = servers, load, bare, seconds
        self.files: dict[tuple[str, str, int, str], Path] = {}
        for server in servers:
            kinds = [mapped, raw] if server.name == "ours" else [plain]
            cases = [(server.wire, tensors, rows) for tensors in kinds for rows in ROWS]
            cases += [(TREES[server.name], numbers, 1)] if server.name in TREES else []
            for wire, tensors, rows in cases:
                for form in wire.paths:
                    requests = [wire.request(form, tensors(rows, seed)) for seed in range(REQUESTS)]
                    key = (server.name, tensors.__name__, rows, form)
                    self.files[key] = load.write("-".join(map(str, key)), requests)
        self.peaks: dict[tuple[str, str, int, str], list[float]] = {key: [] for key in self.files}
        self.raw: dict[str, list[float]] = {}

    def warm(self) -> None:
        for server in self.servers:
            for key, file in self.files.items():
                if key[0] == server.name:
                    self.load.run(server, file, max(1.0, self.seconds), connections=CONNECTIONS)

    def round(self, server: Server) -> dict[str, float]:
        """Each case of a server at its peak."""
        found: dict[str, float] = {}
        floor = self.bare.cpu_us(100)
        for key, file in self.files.items():
            name, tensors, rows, form = key
            if name != server.name:
                continue
            report = self.load.run(server, file, self.seconds, connections=CONNECTIONS)
            requests = report["latencies"]
            self.peaks[key].append(report["rate"])
            case = f"trees1_{form}" if tensors == "numbers" else f"rows{rows}_{form}"
            if tensors == "raw":
                self.raw.setdefault(case, []).append(report["cpu_s"] * 1e6 / requests)
                continue
            found[f"{case}_rps_per_cpu"] = requests / report["cpu_s"]
            if rows == 100 and form == list(server.wire.paths)[-1]:
                found["rows100_overhead"] = report["cpu_s"] * 1e6 / requests - floor
        return found

    def inside(self, form: str) -> dict[str, float]:
        """Microseconds of each stage inside of our host for one mapped row, one request at a time; by its own count."""
        ours = next(server for server in self.servers if server.name == "ours")
        before = _stages(ours)
        self.load.run(ours, self.files["ours", "mapped", 1, form], self.seconds, connections=1)
        after = _stages(ours)
        spent = {stage: (after[stage][0] - before[stage][0], after[stage][1] - before[stage][1]) for stage in after}
        return {stage: harness.figure(1e6 * seconds / count) for stage, (seconds, count) in spent.items() if count}

    def latencies(self) -> dict[str, dict[str, Any]]:
        """p50, p99, p99.9 in milliseconds at half of each one's peak."""
        found: dict[str, dict[str, Any]] = {}
        for server in self.servers:
            for key, file in self.files.items():
                name, tensors, rows, form = key
                if name != server.name or tensors in ("raw", "numbers"):
                    continue
                rate = statistics.median(self.peaks[key]) / 2
                report = self.load.run(server, file, 2 * self.seconds, rate=rate, connections=64, warm=0.2)
                quantiles = {p: harness.figure((report[f"{p}_us"] or 0) / 1000) for p in ("p50", "p99", "p999")}
                found.setdefault(name, {})[f"rows{rows}_{form}"] = {"rate": harness.figure(rate), **quantiles}
        return found


def more(parser: Any) -> None:
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this peer; may be repeated")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0, help="a case and round (default 3; with --quick 0.6)")


def main() -> None:
    options = harness.arguments(__doc__, more)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped on the way out
    names = options.peer or [name for name, peer in PEERS.items() if peer.quick or not options.quick]
    pythons = {name: harness.peer_python(f"serving_{name}") for name in names}
    if "ray" in names and not options.alone:
        # Ray binds the machine's address: all of it happens in a network of its own, which has loopback only.
        inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv, "--alone"]
        os.execvp("unshare", ["unshare", "-n", *inside])
    program = built()
    DATA.mkdir(parents=True, exist_ok=True)
    harness.say("making the bundles ...")
    deep = serving_bundle.deep_bundle(DATA, 3_000_000 if options.quick else 10_000_000)
    trees = serving_bundle.trees_bundle(DATA)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder = Path(name)
        net.with_gather(folder / "gather.onnx")
        (folder / "trees").symlink_to(trees)
        bare = Bare(folder)
        servers = []
        for start in [lambda: start_ours(folder, deep, trees)] + [
            lambda peer=peer: start_peer(peer, pythons[peer], folder) for peer in names
        ]:
            server = start()
            running.callback(server.close)
            harness.say(f"{server.name} answered after {server.start_s:.2f} s")
            servers.append(server)
        check(servers, bare)
        bench = Bench(servers, Load(program, folder), bare, options.seconds or (0.6 if options.quick else 3.0))
        bench.warm()
        rounds = harness.alternate({s.name: lambda s=s: bench.round(s) for s in servers}, options.rounds)
        latency = bench.latencies()
        inside = {form: bench.inside(form) for form in FORMS}
        memory = {server.name: harness.figure(server.rss_mb) for server in servers}
        bare_us = {f"rows{rows}": harness.figure(bare.cpu_us(rows)) for rows in ROWS}
    versions = {name: version_of(pythons[name], PEERS[name].package) for name in names}
    found = harness.document(
        "serving", "requests/CPU-s", rounds, versions, lower_is_better=["rows100_overhead"],
        latency_ms=latency, inside_us=inside, memory_mb=memory, bare_us=bare_us,
        start_s={server.name: harness.figure(server.start_s) for server in servers},
        peak_rps={"-".join(map(str, key)): harness.figure(statistics.median(v)) for key, v in bench.peaks.items()},
        raw_over_mapped={
            case: harness.figure(statistics.median(us) * statistics.median(rounds["ours"][f"{case}_rps_per_cpu"]) / 1e6)
            for case, us in bench.raw.items()
        },
    )  # fmt: skip
    harness.finish(found, options)


def built() -> Path:
    """The load generator."""
    harness.say("building the load generator ...")
    command = ["cargo", "build", "--release", "--quiet", "-p", "penstock-load", "--message-format=json"]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("error: the load generator does not build; cargo's words are above")
    programs = [json.loads(line).get("executable") for line in done.stdout.splitlines()]
    return Path(next(program for program in programs if program))


def version_of(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
