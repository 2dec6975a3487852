"""A thousand swaps under load: no request fails, no answer changes, and memory does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import polars as pl

from penstock.serving.client import Client
from penstock.training.bundle import load

#: A native host that serves one bundle under two digests in turn: opened, warmed up, swapped, drained, closed.
SWAPPING = """
import json, resource, sys
from pathlib import Path
from penstock import native

folder, swaps = sys.argv[1], int(sys.argv[2])
host = native.Host("{}")
page = resource.getpagesize()
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * page

def serve(digest):
    version = {"folder": folder, "digest": digest, "reference": folder}
    traffic = {"weights": {"1": 100}, "live": "1"}
    model = {"versions": {"1": version}, "traffic": traffic, "limits": {"concurrency": 2}}
    report = json.loads(host.apply(json.dumps({"models": {"m": model}})))
    assert report["ready"], report
    return report

serve("a" * 64)
print(host.addresses[0], flush=True)
sys.stdin.readline()
sizes = {}
for n in range(1, swaps + 1):
    report = serve(("b" if n % 2 else "a") * 64)
    assert (report["loaded"], report["unloaded"]) == (1, 1), report
    if n in (100, swaps):
        sizes[n] = resident()
print(json.dumps(sizes), flush=True)
sys.stdin.readline()
assert host.drain(0, 10)
"""


def test_a_thousand_swaps_under_load_fail_no_request_and_leak_nothing(trained: Path, fresh: pl.DataFrame) -> None:
    swaps = 1000
    command = [sys.executable, "-c", SWAPPING, str(trained / "gbdt_lr"), str(swaps)]
    rows = fresh.head(20)
    expected = load(trained / "gbdt_lr").score(rows)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        url = f"http://{child.stdout.readline().strip()}"
        over, faults, bundles, answered = threading.Event(), [], set(), [0]

        def ask() -> None:
            with Client(url, retries=0) as client:
                while not over.is_set():
                    try:
                        reply = client.infer("m", rows)
                        np.testing.assert_allclose(reply.outputs["score"], expected, rtol=0, atol=1e-6)
                        bundles.add(reply.bundle)
                        answered[0] += 1
                    except Exception as fault:  # whatever it is, it is told below
                        faults.append(fault)
                        return

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        child.stdin.write("go\n")
        child.stdin.flush()
        sizes = json.loads(child.stdout.readline())
        over.set()
        for client in clients:
            client.join()
        child.stdin.write("end\n")
        child.stdin.flush()
    assert child.returncode == 0
    assert faults == []
    assert bundles == {"a" * 64, "b" * 64} and answered[0] > 100
    assert sizes[str(swaps)] <= 1.05 * sizes["100"], sizes
