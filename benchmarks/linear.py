"""Progressive LR and FM: samples/s of one core, from each one's own cache and from raw text, against Vowpal Wabbit.

Rows come from a generator with known truth in Criteo's format (label, I1-I13, C1-C26; every field is a feature). Ours
reads Parquet of flat keys, or the TSV through a feature plan in one pass, both as the operators do; vw its binary cache
or its text. Each takes the best of one grid of rates by progressive log loss; vw also the better of its default and
--ftrl. vw keeps all of --lrqfa's factors of a feature in its one array, so FM has bits for features x (1 + fields x
rank): with fewer, features share factors with others and no rate learns anything. Also: sklearn's SGDClassifier and
river (on fewer rows).

Rates are samples per second of processor time, all threads counted: vw parses on a thread beside the one that learns,
and ours reads on one. `logloss` holds the progressive losses on the same rows, and the 95 % interval of the differences
(ours - vw) over twenty blocks: no worse means that its lower end is not above 0.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # before polars is imported: everybody has one core
os.environ["RAYON_NUM_THREADS"] = "1"

import math
import string
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import harness
import numpy as np
import polars as pl
import pyarrow as pa

from penstock.data import csv_files, parquet
from penstock.data.frames import source_of
from penstock.data.paths import resolve as found
from penstock.data.schema import Schema
from penstock.data.text_files import Rejecting
from penstock.features import Plan, check, read
from penstock.features.operators import apply_lazily
from penstock.features.resolve import resolve
from penstock.training.inputs import Layout
from penstock.training.online import OnlineParameters, Targets, begin
from penstock.training.online_cuts import Cuts, Position
from penstock.training.online_operators import FACTOR_SHARE
from penstock.training.online_scorer import Rates

HERE = Path(__file__).resolve().parent
NAMES = [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]
SPACES = (string.ascii_uppercase + string.ascii_lowercase)[: len(NAMES)]
GRID = (0.005, 0.02, 0.05, 0.1, 0.3, 1.0)
RANK = 4
CHUNK = 250_000
#: Parts of the rows whose losses are compared in pairs.
BLOCKS = 20
BATCH_ROWS = 65_536
FLAT = Layout(slots=(("keys", ""),))


def more(parser: Any) -> None:
    parser.add_argument("--rows", type=int, default=0, help="rows (default 5,000,000; with --quick 200,000)")


def generate(folder: Path, rows: int) -> int:
    """The TSV, vw's text of the same tokens. Returns the number of distinct features."""
    rng = np.random.default_rng(3)
    sizes = [50] * 13 + [int(10 ** (1 + 5 * i / 25)) for i in range(26)]
    truth = [rng.normal(0, 0.35, size).astype(np.float32) for size in sizes]
    distinct: list[set[int]] = [set() for _ in sizes]
    with (folder / "rows.tsv").open("wb") as tsv, (folder / "rows.vw").open("wb") as vw:
        tsv.write(("\t".join(["label", *NAMES]) + "\n").encode())
        for at in range(0, rows, CHUNK):
            n = min(CHUNK, rows - at)
            margin = np.full(n, -1.2)
            columns: dict[str, Any] = {}
            for j, (name, size) in enumerate(zip(NAMES, sizes, strict=True)):
                ids = np.minimum(np.exp(rng.random(n) * math.log(size + 1)).astype(np.int64) - 1, size - 1)
                margin += truth[j][ids]
                distinct[j].update(np.unique(ids).tolist())
                codes = pl.Series(name, ids if j < 13 else (ids * 2_654_435_761) % 2**32)
                columns[name] = codes.cast(pl.String)
            label = (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(np.int8)
            frame = pl.DataFrame({"label": label, **columns})
            frame.write_csv(tsv, separator="\t", include_header=False)
            signs = pl.when(pl.col("label") == 1).then(pl.lit("1")).otherwise(pl.lit("-1"))
            parts = [pl.concat_str([pl.lit(f" |{s} "), pl.col(n)]) for s, n in zip(SPACES, NAMES, strict=True)]
            frame.select(pl.concat_str([signs, *parts])).write_csv(vw, include_header=False, quote_style="never")
    return sum(len(each) for each in distinct)


def features_file(folder: Path) -> Path:
    slots = "".join(f'<slot name="{n}_key" id="{i}" fn="hash" from="{n}"/>' for i, n in enumerate(NAMES, 1))
    text = f'<features xmlns="urn:penstock:features:1" name="bench" seed="0">{slots}</features>'
    path = folder / "features.xml"
    path.write_text(text)
    return path


class Ours:
    """The operators' own path without a flow around it: a lazy frame's batches into the native trainer."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.plan = plan_of(features_file(folder))
        self.context: Any = SimpleNamespace(batches=batches, collect=lambda f: f.collect(), progress=lambda *a: None)

    def text(self, rows: int) -> pl.LazyFrame:
        files = found(str(self.folder / "rows.tsv"), base=self.folder)
        types = (("label", "int"), ("*", "str"))
        rejecting = Rejecting("fail", "", lambda *_: None)
        raw = csv_files.scan(files, csv_files.Dialect(sep="\t"), types, rejecting, threads=1)
        return apply_lazily(self.plan, self.first(raw, rows), ["label"], "flat", 1)

    def cache(self, rows: int) -> pl.LazyFrame:
        return self.first(parquet.scan(found(str(self.folder / "rows.parquet"), base=self.folder), "parquet"), rows)

    def first(self, frame: pl.LazyFrame, rows: int) -> pl.LazyFrame:
        return frame if rows == self.rows else frame.head(rows)

    def learn(
        self, frame: pl.LazyFrame, alpha: float, rank: int, chunk: int = BATCH_ROWS
    ) -> tuple[float, float, list[tuple[int, float]]]:
        """Seconds of processor time, progressive log loss, and (rows, summed loss) after each batch."""
        rates = Rates("ftrl", alpha, 1.0, 0.0, 0.0)
        if rank:
            rates = Rates("ftrl", alpha, 1.0, 0.0, 0.0, rank, alpha * FACTOR_SHARE, 1e-4, 0.01, 1)
        parameters = OnlineParameters(rates, 1, 256, 0, 1)
        blocks: list[tuple[int, float]] = []
        started = time.process_time()
        stream, rows = begin(FLAT, True, parameters, iter(batches(frame, chunk)), self.context)
        targets = Targets(frame, "label", "", self.context)

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                yield batch
                done, _, loss, _ = stream.trainer.progress()
                blocks.append((done, done * loss))

        stream.learn(watched(), targets, Position(), Cuts(self.folder, 0))
        seconds = time.process_time() - started
        return seconds, stream.trainer.progress()[2], blocks


def batches(frame: pl.LazyFrame, chunk: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """As the local engine's context gives them to a trainer; blocks of `chunk` rows where that is not its own."""
    source = source_of(frame)
    if source is not None and chunk == BATCH_ROWS:
        yield from source.batches(None)
        return
    for part in frame.collect_batches(chunk_size=chunk, maintain_order=True, engine="streaming"):
        yield from part.to_arrow().to_batches()


def plan_of(path: Path) -> Plan:
    file, faults = read(path)
    assert file is not None and not faults, faults
    checked = check(file, Schema.unknown())
    assert not checked.failed, checked.faults
    return resolve(checked)


def hash_bits(weights: int) -> int:
    return min(30, math.ceil(math.log2(weights)) + 1)


def vw_flags(algorithm: str, rate: float, bits: int, rank: int) -> str:
    how = f"--ftrl --ftrl_alpha {rate}" if algorithm == "ftrl" else f"-l {rate}"
    factors = f"--lrqfa {SPACES}{rank}" if rank else ""
    return f"-b {bits} {how} {factors}"


def best(losses: dict[Any, float]) -> Any:
    return min((k for k in losses if math.isfinite(losses[k])), key=lambda k: losses[k])


def blocks_of(predictions: Path, labels: np.ndarray[Any, Any], ends: list[int]) -> list[float]:
    """vw's summed progressive loss up to each block's end."""
    p = np.clip(np.loadtxt(predictions, usecols=0), 1e-15, 1 - 1e-15)
    summed = np.cumsum(-np.log(np.where(labels == 1, p, 1 - p)))
    return [float(summed[end - 1]) for end in ends]


def compared(ours: list[tuple[int, float]], theirs: list[float]) -> dict[str, Any]:
    """Mean log losses, and the paired 95 % interval of the blocks' differences, ours - theirs."""
    ends = [rows for rows, _ in ours]
    sizes = np.diff([0, *ends])
    own, other = np.diff([0, *(loss for _, loss in ours)]) / sizes, np.diff([0, *theirs]) / sizes
    each = own - other
    error = 1.96 * float(each.std(ddof=1)) / math.sqrt(len(each))
    mean = float(np.average(each, weights=sizes))
    return {
        "ours": ours[-1][1] / ends[-1],
        "vw": theirs[-1] / ends[-1],
        "difference": [round(mean - error, 6), round(mean + error, 6)],
    }


def main() -> None:
    options = harness.arguments(__doc__, more)
    rows = options.rows or (200_000 if options.quick else 5_000_000)
    fm_rows = min(rows, 10_000 if options.quick else 50_000)
    few = min(rows, 50_000 if options.quick else 500_000)
    few_fm = min(rows, 5_000 if options.quick else 10_000)
    with tempfile.TemporaryDirectory(dir=os.environ.get("PENSTOCK_BENCH_DIR")) as name:
        folder = Path(name)
        harness.say(f"generating {rows:,} rows ...")
        features = generate(folder, rows)
        ours = Ours(folder, rows)
        ours.text(rows).sink_parquet(folder / "rows.parquet", compression="uncompressed")
        fm_keys = ours.cache(fm_rows).select(pl.col("keys").explode()).collect()["keys"].n_unique()
        bits = {0: hash_bits(features), RANK: hash_bits(fm_keys * (1 + len(NAMES) * RANK))}
        for count, file in ((few, "few.vw"), (few_fm, "few_fm.vw"), (fm_rows, "fm.vw")):
            with (folder / "rows.vw").open("rb") as full, (folder / file).open("wb") as part:
                part.writelines(line for _, line in zip(range(count), full, strict=False))
        vw = harness.Peer("vw", harness.peer_python("vw"), HERE / "peers" / "linear_vw.py")

        def learn_vw(file: str, flags: str, **more: Any) -> dict[str, Any]:
            return vw.ask(flags=flags, text=str(folder / file), **more)

        # Rates: one grid for everybody, by progressive log loss on the first rows.
        chosen: dict[int, tuple[float, str]] = {}
        for rank, count, file in ((0, few, "few.vw"), (RANK, few_fm, "few_fm.vw")):
            harness.say(f"choosing rates on {count:,} rows, rank {rank} ...")
            own = {a: ours.learn(ours.cache(count), a, rank)[1] for a in GRID}
            grid = [("default", r) for r in GRID] + [("ftrl", r) for r in GRID]
            other = {k: float(learn_vw(file, vw_flags(*k, bits[rank], rank))["logloss"]) for k in grid}
            chosen[rank] = best(own), vw_flags(*best(other), bits[rank], rank)
            harness.say(f"  ours alpha={best(own)} {min(own.values()):.5f}; vw {best(other)} {min(other.values()):.5f}")
        (alpha, flags), (fm_alpha, fm_flags) = chosen[0], chosen[RANK]

        labels = pl.read_parquet(folder / "rows.parquet", columns=["label"])["label"].to_numpy()
        losses = {}
        for case, file, count, rate, line, rank in (
            ("lr", "rows.vw", rows, alpha, flags, 0), ("fm", "fm.vw", fm_rows, fm_alpha, fm_flags, RANK),
        ):  # fmt: skip
            blocks = ours.learn(ours.cache(count), rate, rank, count // BLOCKS)[2]
            learn_vw(file, line, predictions=str(folder / "p"))
            losses[case] = compared(blocks, blocks_of(folder / "p", labels[:count], [n for n, _ in blocks]))
            learn_vw(file, line, cache=str(folder / f"{case}.cache"), make=True)

        sklearn = harness.Peer("sklearn", harness.peer_python("sklearn"), HERE / "peers" / "linear_sklearn.py")
        river = harness.Peer("river", harness.peer_python("river"), HERE / "peers" / "linear_river.py")
        sk_rows = 20_000 if options.quick else 200_000
        some = folder / "some.tsv"
        with (folder / "rows.tsv").open("rb") as full, some.open("wb") as part:
            part.writelines(line for _, line in zip(range(sk_rows + 1), full, strict=False))
        sk = {"text": str(some), "cache": str(folder / "some.npz")}
        sklearn.ask(job="prepare", **sk)

        def by_ours() -> dict[str, float]:
            return {
                "lr_cache": rows / ours.learn(ours.cache(rows), alpha, 0)[0],
                "lr_text": rows / ours.learn(ours.text(rows), alpha, 0)[0],
                "fm_cache": rows / ours.learn(ours.cache(rows), fm_alpha, RANK)[0],
                "fm_text": rows / ours.learn(ours.text(rows), fm_alpha, RANK)[0],
            }

        def by_vw() -> dict[str, float]:
            asked = {
                "lr_cache": learn_vw("rows.vw", flags, cache=str(folder / "lr.cache")),
                "lr_text": learn_vw("rows.vw", flags),
                "fm_cache": learn_vw("fm.vw", fm_flags, cache=str(folder / "fm.cache")),
                "fm_text": learn_vw("fm.vw", fm_flags),
            }
            return {case: float(a["rows"]) / float(a["seconds"]) for case, a in asked.items()}

        def speed(answer: dict[str, Any]) -> float:
            return float(answer["rows"]) / float(answer["seconds"])

        contenders = {
            "ours": by_ours,
            "vw": by_vw,
            "sklearn": lambda: {job: speed(sklearn.ask(job=job, **sk)) for job in ("lr_cache", "lr_text")},
            "river": lambda: {
                job: speed(river.ask(job=job, text=str(some), rows=1000)) for job in ("lr_cache", "lr_text")
            },
        }
        rounds = harness.alternate(contenders, options.rounds)
        versions = {"vw": vw.version, "sklearn": sklearn.version, "river": river.version}
        found = harness.document(
            "linear", "samples/s", rounds, versions, rows=rows, fields=len(NAMES), keys=features, logloss=losses,
            rates={"lr": [alpha, flags], "fm": [fm_alpha, fm_flags]},
        )  # fmt: skip
        for peer in (vw, sklearn, river):
            peer.close()
        harness.finish(found, options)


if __name__ == "__main__":
    main()
