"""Reading and writing libsvm files: rows/s against scikit-learn's loader and dumper, one thread each.

Ours is the operators' own path: `input type="libsvm"` to a frame in memory, and `output type="libsvm"` from one. The
big file is generated: 40 pairs a row, indices up to 1e9. Values are compared before anything is timed.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # before polars is imported: scikit-learn has one thread too
os.environ["RAYON_NUM_THREADS"] = "1"

import gzip
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import harness
import numpy as np
import polars as pl
import pyarrow as pa

from penstock.data.schema import Column, Schema
from penstock.operators import operator

A9A = Path(__file__).resolve().parents[2] / "shared" / "data" / "libsvm" / "a9a_123d_train.libsvm.gz"
PAIRS = 40
SCHEMA = Schema(
    (Column("label", pa.float32()), Column("indices", pa.list_(pa.int64())), Column("values", pa.list_(pa.float32())))
)
CONTEXT: Any = SimpleNamespace(
    flow_dir=Path("/"), step="bench", threads=1, progress=lambda *a: None, info=lambda reference: SCHEMA
)


def read(path: Path, base: int) -> pl.DataFrame:
    made: Any = operator("input", "libsvm").model_validate({"path": str(path), "base": base})
    return made.read(CONTEXT).collect(engine="streaming")


def write(frame: pl.DataFrame, path: Path) -> None:
    made: Any = operator("output", "libsvm").model_validate({"from": "rows", "path": str(path)})
    pl.collect_all([made.sink(frame.lazy(), path, CONTEXT)], engine="streaming")


def generate(path: Path, rows: int) -> None:
    rng = np.random.default_rng(7)
    keys = np.sort(rng.integers(0, 1_000_000_000, (rows, PAIRS)), axis=1) + np.arange(PAIRS)  # no index twice in a row
    values = rng.random((rows, PAIRS), dtype=np.float32).round(4)
    frame = pl.DataFrame(
        {
            "label": pl.Series(rng.integers(0, 2, rows), dtype=pl.Float32),
            "indices": pl.Series(keys, dtype=pl.Array(pl.Int64, PAIRS)).arr.to_list(),
            "values": pl.Series(values, dtype=pl.Array(pl.Float32, PAIRS)).arr.to_list(),
        }
    )
    write(frame, path)


def same(frame: pl.DataFrame, arrays: Any) -> None:
    """Raise SystemExit unless our rows are scikit-learn's to the bit."""
    pairs = {
        "indptr": np.concatenate([[0], np.cumsum(frame["indices"].list.len().to_numpy())]),
        "indices": frame["indices"].explode(empty_as_null=False).to_numpy(),
        "values": frame["values"].explode(empty_as_null=False).to_numpy(),
        "labels": frame["label"].to_numpy(),
    }
    for name, ours in pairs.items():
        if not np.array_equal(ours, arrays[name]):
            raise SystemExit(f"error: our {name} are not scikit-learn's")


def main() -> None:
    options = harness.arguments(__doc__)
    peer = harness.Peer(
        "sklearn",
        harness.peer_python("sklearn"),
        harness.HERE / "peers" / "libsvm_sklearn.py",
        env={"OMP_NUM_THREADS": "1"},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = 50_000 if options.quick else 200_000
        generate(folder / "big", rows)
        files = {"big": (folder / "big", 0)}
        if A9A.is_file():
            (folder / "a9a").write_bytes(gzip.decompress(A9A.read_bytes()))
            files["a9a"] = (folder / "a9a", 1)
        frames = {}
        for case, (path, base) in files.items():
            frames[case] = read(path, base)
            peer.ask(job="read", path=str(path), base=base)
            peer.ask(job="arrays", path=str(path), to=str(folder / "arrays.npz"))
            same(frames[case], np.load(folder / "arrays.npz"))
            write(frames[case], folder / "ours")
            peer.ask(job="read", path=str(folder / "ours"), base=0)
            peer.ask(job="arrays", path=str(folder / "ours"), to=str(folder / "arrays.npz"))
            same(frames[case], np.load(folder / "arrays.npz"))

        def ours() -> dict[str, float]:
            found = {}
            for case, (path, base) in files.items():
                started = time.perf_counter()
                frame = read(path, base)
                found[f"read_{case}"] = frame.height / (time.perf_counter() - started)
                started = time.perf_counter()
                write(frame, folder / "written")
                found[f"write_{case}"] = frame.height / (time.perf_counter() - started)
            return found

        def theirs() -> dict[str, float]:
            found = {}
            for case, (path, base) in files.items():
                height = frames[case].height
                found[f"read_{case}"] = height / peer.ask(job="read", path=str(path), base=base)["seconds"]
                asked = peer.ask(job="write", path=str(path), to=str(folder / "theirs"))
                found[f"write_{case}"] = height / asked["seconds"]
            return found

        rounds = harness.alternate({"ours": ours, "sklearn": theirs}, options.rounds)
    peer.close()
    more = {"threads": 1, "rows": {case: frame.height for case, frame in frames.items()}}
    harness.finish(harness.document("libsvm", "rows/s", rounds, versions={"sklearn": peer.version}, **more), options)


if __name__ == "__main__":
    main()
