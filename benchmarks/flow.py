"""Running nodes: what one costs inside a process, and isolated in its own; against Kedro, Prefect and Metaflow.

Like with like. `in_process`: a chain of no-op modules in one process (ours: steps of one node; Kedro: SequentialRunner;
Prefect: tasks of a flow). `isolated`: a fan of no-op nodes, each a process of its own whose output is persisted, two at
a time, timed as the whole command (ours: `penstock flow run`; Metaflow: `python flow.py run`). `pool`: the same nodes
without interpreter start and imports on either side (ours: from the second end to the last), against Kedro's
ParallelRunner, whose two forked workers are reused: less isolation, and no fsync.
Besides: what one inner module adds (goal <= 2 ms), the p50 of one isolated persisted node (goal <= 50 ms), nodes a
second once the run is under way (goal >= 20), and the check of a flow of 1,000 nodes (goal <= 1 s).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

HERE = Path(__file__).resolve().parent
HEAD = '<flow xmlns="urn:penstock:flow:1" name="bench">\n'


class Ours:
    """Penstock in a folder of its own; every run starts from an empty cache (--force)."""

    def __init__(self, nodes: int, modules: int) -> None:
        self.nodes, self.modules = nodes, modules
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        (self.folder / "in.csv").write_text("a\n1\n2\n3\n")
        (self.folder / "source.xml").write_text(
            f'{HEAD}<node name="s"><input name="i" type="csv" path="in.csv"/>'
            '<output name="o" type="parquet" from="i" path="in.parquet"/></node></flow>'
        )
        (self.folder / "fan.xml").write_text(HEAD + "".join(_node(i) for i in range(nodes)) + "</flow>")
        (self.folder / "thousand.xml").write_text(HEAD + "".join(_node(i) for i in range(1000)) + "</flow>")
        self.environment = {**os.environ, "PENSTOCK_HOME": str(self.folder / "home")}
        self._command("run", "source.xml")
        self.p50: list[float] = []
        self.steady: list[float] = []
        self.inner_ms: list[float] = []

    def measure(self) -> dict[str, float]:
        return {"in_process": self.in_process(), **self.isolated()}

    def in_process(self) -> float:
        """Modules a second of a chain inside one node, read and write included; what one adds is the slope."""
        few = min(self._chain(1) for _ in range(3))
        many = min(self._chain(1 + self.modules) for _ in range(3))
        self.inner_ms.append(max(many - few, 0.0) / self.modules * 1e3)
        return (1 + self.modules) / many

    def _chain(self, modules: int) -> float:
        from penstock.engines.local import LocalEngine
        from penstock.engines.spec import NodeSpec, StepSpec

        class Silent:
            def progress(self, *_: Any, **__: Any) -> None: ...
            def log(self, message: str) -> None: ...

        steps = [StepSpec(kind="input", name="s0", type="parquet", attrs={"path": str(self.folder / "in.parquet")})]
        for i in range(modules):
            attrs = {"from": f"s{i}", "columns": "a"}
            steps.append(StepSpec(kind="process", name=f"s{i + 1}", type="select", attrs=attrs))
        attrs = {"from": f"s{modules}", "path": str(self.folder / "chain.parquet")}
        steps.append(StepSpec(kind="output", name="o", type="parquet", attrs=attrs))
        scratch = self.folder / "chain"
        scratch.mkdir(exist_ok=True)
        spec = NodeSpec(run="b", node="n", engine="local", folder=str(scratch), steps=tuple(steps))
        started = time.perf_counter()
        LocalEngine().run(spec, Silent())
        return time.perf_counter() - started

    def isolated(self) -> dict[str, float]:
        started = time.perf_counter()
        document = self._command("run", "fan.xml", "--force", "--jobs", "2")
        whole = time.perf_counter() - started
        stamps = self._stamps(document["run"])
        # The first two nodes wait for the forkserver to import its libraries, as Kedro's process has done already.
        ends = sorted(end for _, end in stamps)
        self.steady.append((len(ends) - 2) / (ends[-1] - ends[1]))
        alone = self._command("run", "fan.xml", "--force", "--jobs", "1")
        self.p50.append(statistics.median(n["seconds"] for n in alone["nodes"]) * 1e3)
        return {"isolated": self.nodes / whole, "pool": self.steady[-1]}

    def _stamps(self, run: str) -> list[tuple[float, float]]:
        from penstock.flow.store import RunStore

        store = RunStore.open(self.folder / "home")
        try:
            return [(n.started or 0.0, n.ended or 0.0) for n in store.nodes(run)]
        finally:
            store.close()

    def check_thousand(self) -> float:
        """Seconds to read, check and plan 1,000 nodes, the interpreter not counted."""
        script = (
            "import time; t = time.perf_counter()\n"
            "from penstock.flow.run import Request, prepare; from pathlib import Path\n"
            "t1 = time.perf_counter(); prepare(Request(Path('thousand.xml'))); print(time.perf_counter() - t1)"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=self.folder, env=self.environment, text=True,
                              stdout=subprocess.PIPE, check=True)  # fmt: skip
        return float(done.stdout)

    def _command(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli", "flow", *arguments, "--json"], cwd=self.folder,
            env=self.environment, text=True, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"error: penstock flow {' '.join(arguments)} failed\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)


def _node(number: int) -> str:
    return (f'<node name="n{number}"><input name="i" type="parquet" path="in.parquet"/>'
            f'<output name="o" type="parquet" from="i"/></node>\n')  # fmt: skip


def main() -> None:
    options = harness.arguments(__doc__)
    nodes, modules = (20, 50) if options.quick else (40, 200)
    ours = Ours(nodes, modules)
    kedro = harness.Peer("kedro", harness.peer_python("kedro"), HERE / "peers" / "kedro_nodes.py")
    prefect = harness.Peer("prefect", harness.peer_python("prefect"), HERE / "peers" / "prefect_nodes.py")
    metaflow = harness.Peer("metaflow", harness.peer_python("metaflow"), HERE / "peers" / "metaflow_nodes.py")
    peers = (kedro, prefect, metaflow)
    try:
        rounds = harness.alternate(
            {
                "ours": ours.measure,
                "kedro": lambda: {
                    "in_process": kedro.ask(case="in_process", nodes=modules)["rate"],
                    "pool": kedro.ask(case="pool", nodes=nodes)["rate"],
                },
                "prefect": lambda: {"in_process": prefect.ask(case="in_process", nodes=min(modules, 50))["rate"]},
                "metaflow": lambda: {"isolated": metaflow.ask(case="isolated", nodes=nodes)["rate"]},
            },
            options.rounds,
        )
        check = statistics.median(ours.check_thousand() for _ in range(3))
    finally:
        for peer in peers:
            peer.close()
    found = harness.document("flow", "nodes/s", rounds, {p.name: p.version for p in peers})
    found["ours"] |= {
        "inner_module_ms": harness.figure(statistics.median(ours.inner_ms)),
        "isolated_node_p50_ms": harness.figure(statistics.median(ours.p50)),
        "isolated_steady_per_s": harness.figure(statistics.median(ours.steady)),
        "check_1000_nodes_s": harness.figure(check),
    }
    harness.finish(found, options)


if __name__ == "__main__":
    main()
