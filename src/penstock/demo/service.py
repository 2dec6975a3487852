"""The main job goes live: the bundle is pushed, served, compared with `predict`, canaried, promoted and rolled back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.data.atomic import write_text
from penstock.demo.processes import Programs, at_home, ended_by_sigterm
from penstock.errors import PenstockError

#: Rows that are scored and compared, and rows a request.
ROWS, A_REQUEST = 10_000, 500
#: Requests of one row that show a split.
ASKED = 2_000
#: Served scores are f32: what may lie between one and predict's.
CLOSE = 1e-6
#: What a host says once it is ready.
SERVING_LINE = r"serving http=(\S+) grpc=(\S+)\n"

SERVING = """# What `penstock demo` serves. Change it while `penstock serve serving.toml` runs: it is taken up at once.
[models.ctr.versions]
1 = "models:/ctr/1"
[models.ctr.traffic]
1 = 100
sticky = "user_id"
[host]
drain_s = 0
"""


@dataclass(frozen=True)
class Served:
    """`steps`: what was done and what came of it, a line each. `furthest`: the largest difference to `predict`."""

    steps: tuple[tuple[str, str], ...]
    furthest: float
    rows: int

    def table(self) -> str:
        width = max(len(step) for step, _ in self.steps)
        return "\n".join(f"  {step:<{width}}  {found}" for step, found in self.steps)


def go_live(folder: Path, run: Mapping[str, Any], tell: Callable[[str], None]) -> Served:
    """Push the run's bundle to a registry in `folder`, serve it, and release a second version. Everything is stopped.

    Raises `PenstockError` where a served score is not `predict`'s, or the host does not start.
    """
    outputs = {name: Path(path) for name, path in run["outputs"].items()}
    with at_home(folder), ended_by_sigterm():
        tell("going live ...")
        first, second = _push_twice(outputs["model.bundle"], run["metrics"]["model.quality"])
        config = folder / "serving.toml"
        write_text(config, SERVING.replace("ctr/1", f"ctr/{first}").replace("\n1 =", f"\n{first} ="))
        with _host(folder, config) as (http, grpc, start_s):
            steps = [
                ("pushed", f"models:/ctr/{first} (live) and models:/ctr/{second}, the same model once more"),
                ("host ready", f"http {http}, grpc {grpc}, after {start_s:.1f} s"),
            ]
            furthest, rows, more = _compare(http, grpc, outputs["samples.test"], outputs["model.scores"])
            steps += [*more, *_release(config, http, outputs["samples.test"], first, second)]
        steps.append(("host stopped", "drained, exit 0"))
    return Served(tuple(steps), furthest, rows)


def _push_twice(bundle: Path, metrics: Mapping[str, Any]) -> tuple[int, int]:
    from penstock.registry import Registry

    with Registry() as registry:
        first = registry.push(bundle, "ctr", aliases=["live"], metrics=metrics, notes="penstock demo")
        second = registry.push(bundle, "ctr", aliases=["canary"], metrics=metrics, notes="once more")
    return first.number, second.number


@contextmanager
def _host(folder: Path, config: Path) -> Iterator[tuple[str, str, float]]:
    """A running host: its addresses, and how long it took to be ready."""
    began = time.perf_counter()
    with Programs(folder / "logs") as programs:
        host = programs.start("serving", "serve", str(config))
        ready = programs.said(host, SERVING_LINE)
        yield ready[1], ready[2], time.perf_counter() - began


def _compare(http: str, grpc: str, test: Path, scores: Path) -> tuple[float, int, list[tuple[str, str]]]:
    """Score test rows through both doors; the furthest that a score is from `predict`'s."""
    import numpy as np
    import polars as pl

    from penstock.serving.client import Client
    from penstock.serving.grpc_client import GrpcClient

    rows = pl.read_parquet(test, n_rows=ROWS)
    expected = pl.read_parquet(scores, columns=["score"], n_rows=ROWS)["score"].to_numpy()
    steps, furthest = [], 0.0
    over_grpc = GrpcClient(grpc)
    with Client(f"http://{http}") as over_http:
        for door, client in (("REST", over_http), ("gRPC", over_grpc)):
            began = time.perf_counter()
            parts = [client.infer("ctr", part).outputs["score"] for part in rows.iter_slices(A_REQUEST)]
            seconds = time.perf_counter() - began
            apart = float(np.abs(np.concatenate(parts) - expected).max())
            if not apart <= CLOSE:
                raise PenstockError(f"a score over {door} is {apart:g} away from predict's", "report this: it is a bug")
            furthest = max(furthest, apart)
            speed = f"{rows.height / seconds:,.0f} rows/s from this client"
            steps.append(
                (f"scored over {door}", f"{rows.height:,} raw rows as predict does, within {apart:.1g}; {speed}")
            )
    over_grpc.close()
    return furthest, rows.height, steps


def _release(config: Path, http: str, test: Path, first: int, second: int) -> list[tuple[str, str]]:
    """A canary at 20 %, promoted, rolled back; after each, who answers."""
    import polars as pl

    from penstock.serving.client import Client
    from penstock.serving.releases import open_releases

    releases = open_releases(config)
    people = pl.read_parquet(test).unique("user_id", maintain_order=True).head(ASKED)

    with Client(f"http://{http}") as client:

        def answered() -> str:
            found = Counter(client.infer("ctr", row).version for row in people.iter_slices(1))
            shares = (f"version {v}: {100 * n / people.height:.1f} %" for v, n in sorted(found.items()))
            return f"of {people.height:,} users, {', '.join(shares)}"

        steps = []
        releases.release("ctr", str(second), 20.0, "", False)
        steps.append((f"canary {second} at 20 %", answered()))
        releases.promote("ctr")
        steps.append((f"promoted {second}", answered()))
        releases.rollback("ctr", "the demo shows it")
        steps.append((f"rolled back to {first}", answered()))
        return steps
