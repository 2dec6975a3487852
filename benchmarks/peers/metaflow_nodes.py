"""Metaflow: a fan of N no-op steps, each a process of its own with its artefacts persisted; two at a time."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

FLOW = """
from metaflow import FlowSpec, step

class NoopFlow(FlowSpec):
    @step
    def start(self):
        self.items = list(range({nodes}))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.out = [1, 2, 3]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(len(i.out) for i in inputs)
        assert self.total == 3 * {nodes}
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    NoopFlow()
"""


def setup(question):  # type: ignore[no-untyped-def]
    import metaflow

    return metaflow.__version__


def answer(case, nodes):  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "noop.py"
        script.write_text(FLOW.format(nodes=nodes))
        environment = {
            **os.environ,
            "METAFLOW_HOME": folder,
            "USERNAME": "bench",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": folder,
        }
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, script, "--quiet", "run", "--max-workers", "2", "--max-num-splits", "100000"],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit("metaflow failed")
        seconds = time.perf_counter() - started
    # start, join and end are steps like the others.
    return {"rate": (nodes + 3) / seconds}


if __name__ == "__main__":
    harness.serve(setup, answer)
