"""Feature mapping on a CTR-like table: our kernel against Spark's Python UDFs, scikit-learn, pandas and Polars.

The table has 13 numbers, 26 strings and 2 lists of strings; the features are 13 piecewise, 2 pickcat over a dictionary
of a million values, 24 hashes, 2 hashed lists, 5 combined pairs and 13 logarithms. Everybody maps columns that are in
memory to columns in memory (Spark: from its cache into its noop sink); each peer is written as its experts would, with
its own hash where it has no XXH3 (only spark_udf does). Before timing, piecewise, pickcat and log are compared value by
value with ours. `one_row` is the time of a single row of 40 slots through the Python door.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import polars as pl

from penstock.data.schema import Schema
from penstock.features import Plan, check, read
from penstock.features.resolve import resolve

HERE = Path(__file__).resolve().parent
DATA = HERE / ".data"
NUMBERS = [f"I{i}" for i in range(1, 14)]
STRINGS = [f"C{i}" for i in range(1, 27)]
LISTS = ["tags", "history"]
ENTRIES = 1_000_000
BOUNDS = [0.0, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0]
PAIRS = [("C1", "C3"), ("C4", "C5"), ("C6", "C7"), ("C8", "C9"), ("C10", "C11")]
CHECKED_ROWS = 10_000


def table(rows: int) -> Path:
    """The raw table, made once for each size."""
    path = DATA / f"ctr-{rows}.parquet"
    if path.exists():
        return path
    DATA.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {}
    for i, name in enumerate(NUMBERS):
        values = np.floor(rng.lognormal(2, 1.5, rows) * 4) / 4
        columns[name] = pl.Series(values).set(pl.Series(rng.random(rows) < 0.02 * i), None)
    for i, name in enumerate(STRINGS):
        distinct = 1_200_000 if i < 2 else 10 ** (1 + i % 6)
        drawn = (rng.pareto(1.1, rows) * distinct / 50).astype(np.int64) % distinct
        texts = pl.Series(drawn).cast(pl.String)
        columns[name] = (pl.Series([f"{name.lower()}_"]).extend_constant(f"{name.lower()}_", rows - 1) + texts).set(
            pl.Series(rng.random(rows) < 0.01 * (i % 4)), None
        )
    for name, most in zip(LISTS, (6, 16), strict=True):
        lengths = rng.integers(0, most, rows)
        flat = pl.Series((rng.pareto(1.2, lengths.sum()) * 200).astype(np.int64) % 50_000).cast(pl.String)
        row_of = np.repeat(np.arange(rows), lengths)
        grouped = pl.DataFrame({"row": row_of, "value": flat}).group_by("row", maintain_order=True).agg("value")
        columns[name] = pl.DataFrame({"row": np.arange(rows)}).join(
            grouped, on="row", how="left", maintain_order="left"
        )["value"]
    pl.DataFrame(columns).write_parquet(path)
    return path


def dictionary() -> Path:
    path = DATA / "entries.txt"
    DATA.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("".join(f"c{1 + i % 2}_{i // 2}\n" for i in range(ENTRIES)))
    return path


def feature_file(folder: Path, slots: int | None = None) -> Path:
    bounds = ", ".join(f"{b:g}" for b in BOUNDS)
    lines = [f'<slot name="b_{n}" id="{{id}}" fn="piecewise" from="{n}" bounds="{bounds}"/>' for n in NUMBERS]
    lines += [f'<slot name="p_{n}" id="{{id}}" fn="pickcat" from="{n}" dict="entries"/>' for n in STRINGS[:2]]
    lines += [f'<slot name="h_{n}" id="{{id}}" fn="hash" from="{n}"/>' for n in STRINGS[2:] + LISTS]
    lines += [f'<slot name="x_{a}_{b}" id="{{id}}" fn="combine" from="{a} {b}"/>' for a, b in PAIRS]
    lines = [line.format(id=i) for i, line in enumerate(lines, 1)][:slots]
    if slots is None:
        lines += [f'<dense name="l_{n}" fn="log" from="{n}"/>' for n in NUMBERS]
    path = folder / "features.xml"
    path.write_text(
        '<features xmlns="urn:penstock:features:1" name="ctr">\n'
        f'<dict name="entries" path="{dictionary()}"/>\n' + "\n".join(lines) + "\n</features>\n"
    )
    return path


def plan_of(path: Path) -> Plan:
    file, faults = read(path)
    assert file is not None and not faults, faults
    checked = check(file, Schema.unknown())
    assert not checked.failed, checked.faults
    return resolve(checked)


def exact(mapped: pl.DataFrame) -> pl.DataFrame:
    """What every peer can express, in one form: indices with -1 for none, logarithms with 0 for none."""
    index = [
        (pl.col(name).list.first() & ((1 << 52) - 1)).cast(pl.Int64).fill_null(-1).alias(name)
        for name in mapped.columns
        if name[:2] in ("b_", "p_")
    ]
    return mapped.select(*index, *(f"l_{n}" for n in NUMBERS))


def one_row(plan: Plan, row: dict[str, Any], calls: int = 20_000) -> float:
    """Microseconds a row through `Plan.kernel.apply_row`, Python objects in and out."""
    apply = plan.kernel.apply_row
    started = time.perf_counter()
    for _ in range(calls):
        apply(row)
    return (time.perf_counter() - started) / calls * 1e6


def own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", help="peers, by comma (spark_udf and sklearn take an hour for 2M rows)")
    parser.add_argument("--rows", type=int, default=0, help="rows of the table (default 2,000,000; --quick 30,000)")


def main() -> None:
    options = harness.arguments(__doc__, own_arguments)
    rows = options.rows or (30_000 if options.quick else 2_000_000)
    threads = 2
    path = table(rows)
    folder = Path(tempfile.mkdtemp(prefix="bench-features-"))
    plan = plan_of(feature_file(folder))
    small = plan_of(feature_file(Path(tempfile.mkdtemp(prefix="bench-features-")), slots=40))
    frame = pl.read_parquet(path)
    batch = frame.rechunk()
    row = {name: value for name, value in frame.row(7, named=True).items() if name in small.columns}
    ours_exact = exact(plan.apply(batch.head(CHECKED_ROWS), threads=threads))

    def ours() -> dict[str, float]:
        started = time.perf_counter()
        mapped = plan.apply(batch, threads=threads)
        seconds = time.perf_counter() - started
        assert mapped.height == rows
        return {"map": rows / seconds, "one_row_us": one_row(small, row)}

    setup = {
        "data": str(path), "entries": str(dictionary()), "bounds": BOUNDS, "numbers": NUMBERS, "strings": STRINGS,
        "lists": LISTS, "pairs": PAIRS, "threads": threads, "checked_rows": CHECKED_ROWS,
    }  # fmt: skip
    wanted = [n for n in options.only.split(",") if n] or [
        "spark_udf",
        "spark_pandas_udf",
        "sklearn",
        "pandas",
        "polars",
    ]
    peers: dict[str, harness.Peer] = {}
    versions: dict[str, str] = {}
    for name in wanted:
        spark = name.startswith("spark")
        python = harness.peer_python("spark" if spark else "tables")
        script = HERE / "peers" / ("features_spark.py" if spark else "features_tables.py")
        harness.say(f"starting {name}")
        env = {"PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python), "POLARS_MAX_THREADS": str(threads)}
        peers[name] = harness.Peer(name, python, script, {**setup, "case": name}, env)
        versions[name] = peers[name].version
        answer = folder / f"{name}.parquet"
        peers[name].ask(check=str(answer))
        compare(name, ours_exact, pl.read_parquet(answer))

    def peer_round(name: str) -> dict[str, float]:
        return {"map": rows / peers[name].ask()["seconds"]}

    contenders: dict[str, Any] = {"ours": ours}
    contenders |= {name: (lambda name=name: peer_round(name)) for name in peers}
    rounds = harness.alternate(contenders, options.rounds)
    for peer in peers.values():
        peer.close()
    goals = {"spark_udf": 20, "spark_pandas_udf": 8, "sklearn": 5, "polars": 1.5, "one_row_us": 10}
    harness.finish(harness.document("features", "rows/s", rounds, versions, rows=rows, goals=goals), options)


def compare(name: str, ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    """Piecewise and pickcat exactly, logarithms to the last bit of f32 (libm differs in the last of f64)."""
    for column in ours.columns:
        a, b = ours[column].to_numpy(), theirs[column].to_numpy()
        same = np.array_equal(a, b) if a.dtype.kind == "i" else np.all(np.abs(a - b) <= np.spacing(np.abs(a)))
        if not same:
            where = int(np.flatnonzero(a != b)[0])
            raise SystemExit(
                f"error: {name} differs from ours in {column}, row {where}: {b[where]!r}, not {a[where]!r}"
            )
    harness.say(f"{name}: piecewise, pickcat and log are equal to ours in {ours.height:,} rows")


if __name__ == "__main__":
    sys.exit(main())
