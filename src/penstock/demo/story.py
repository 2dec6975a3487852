"""Running the main job: prepare a folder, run its flow, read back how good the model is and how good it could be."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.data.atomic import write_text
from penstock.errors import RequestError

if TYPE_CHECKING:
    from penstock.demo.figures import Figures

#: Runs a flow file with values; returns the run's document (CONTRACT §3). The door passes the real one.
RunFlow = Callable[[Path, Mapping[str, str]], Mapping[str, Any]]
#: Simulated logs are made anew when this changes.
LOGS_VERSION = "1"


@dataclass(frozen=True)
class Outcome:
    """What the last line of `penstock demo` says. `best` is None on real data, where nobody knows it."""

    auc: float
    best: float | None
    seconds: float
    run: Mapping[str, Any]
    folder: Path

    @property
    def lift_share(self) -> float | None:
        """The model's AUC above 0.5 as a share of the oracle's."""
        return None if self.best is None else (self.auc - 0.5) / (self.best - 0.5)

    def line(self) -> str:
        best = "-" if self.best is None else f"{self.best:.4f}"
        return f"demo: ok auc={self.auc:.4f} best={best} seconds={self.seconds:.1f}"


@dataclass(frozen=True)
class Looped:
    """What the closed loop did, and the page that shows it."""

    figures: Figures
    report: Path

    def table(self) -> str:
        found = self.figures
        names = {"loop": "the loop", "frozen": "frozen", "best": "best possible"}
        told = [
            (phase.name, ", ".join(f"{name} {phase.auc[who] or 0:.4f}" for who, name in names.items()))
            for phase in found.phases
        ]
        fresh = (found.fresh_p50 or 0.0, found.fresh_p95 or 0.0, found.fresh_most or 0.0)
        rows = found.last
        told += [
            ("click to served", "median {:.2f} s, 95 % within {:.2f} s, all within {:.2f} s".format(*fresh)),
            ("counted", f"{found.counts['impressions']:,} impressions and {found.counts['clicks']:,} clicks: "
             f"{found.counts['learnt']:,} samples learnt once each, {found.counts['deltas']:,} deltas"),
            ("rows", f"{rows.rows:,} in the table, {rows.added:,} added, {rows.evicted:,} evicted"),
            ("the curves", str(self.report)),
        ]  # fmt: skip
        width = max(len(name) for name, _ in told)
        return "\n".join(["  AUC of served scores in the closed loop"] + [f"  {n:<{width}}  {t}" for n, t in told])


def run_simulated(folder: Path, run_flow: RunFlow, tell: Callable[[str], None], impressions: int = 200_000) -> Outcome:
    """Simulate the logs (unless they are there already), run `ctr.xml` on them, compare with the true probabilities."""
    start = time.perf_counter()
    flow = _unpack("ctr", folder)
    truth = _logs(folder, impressions, tell)
    run = run_flow(flow, {})
    metrics = run["metrics"]["model.quality"]
    best = _oracle_auc(Path(run["outputs"]["model.scores"]), truth)
    return Outcome(metrics["auc"], best, time.perf_counter() - start, run, folder)


def run_criteo(data: Path, folder: Path, run_flow: RunFlow) -> Outcome:
    """Run `criteo.xml` on a TSV file in Criteo's display-ads format (plain or gz, with or without a header)."""
    start = time.perf_counter()
    flow = _unpack("criteo", folder)
    values = {"data": str(data.resolve()), "header": "true" if _has_header(data) else "false"}
    run = run_flow(flow, values)
    return Outcome(run["metrics"]["model.quality"]["auc"], None, time.perf_counter() - start, run, folder)


def run_loop(folder: Path, run_flow: RunFlow, tell: Callable[[str], None], seconds: float, quiet: bool) -> Looped:
    """Close the loop in `folder`/loop for `seconds`. `quiet`: lines instead of a live view, whatever stderr is."""
    from penstock.demo.loop import close_the_loop
    from penstock.demo.loop_report import report
    from penstock.demo.terminal import PlainView, view

    _unpack("loop", folder / "loop")
    shown = PlainView(sys.stderr) if quiet else view(seconds)
    figures = close_the_loop(folder / "loop", lambda flow: run_flow(flow, {}), tell, shown, seconds)
    page = folder / "report.html"
    write_text(page, report(figures))
    return Looped(figures, page)


def _unpack(name: str, folder: Path) -> Path:
    """Copy the flow and what belongs to it to where the user can open, change and run them again."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("penstock.demo") / name) as source:
        for path in sorted([*source.glob("*.xml"), *source.glob("*.toml")]):
            target = folder / path.name
            if not target.exists():
                shutil.copyfile(path, target)
    return folder / f"{name}.xml"


def _logs(folder: Path, impressions: int, tell: Callable[[str], None]) -> Path:
    """Make the logs once; a stamp beside them says of which version and size they are."""
    truth = folder / "truth.parquet"
    stamp = folder / "logs.json"
    wanted = json.dumps({"version": LOGS_VERSION, "impressions": impressions})
    if truth.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return truth
    from penstock.demo.simulator import simulate

    tell(f"simulating {impressions:,} impressions over 7 days ...")
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    logs = simulate(folder / "data", impressions)
    logs.truth.write_parquet(truth)
    write_text(stamp, wanted)
    tell(f"  {logs.impressions:,} impressions, {logs.clicks:,} clicks in {folder / 'data'}")
    return truth


def _oracle_auc(scores: Path, truth: Path) -> float:
    """The AUC of the true probabilities on the rows that the model was tested on."""
    import polars as pl

    from penstock.training.metrics import auc

    table = pl.read_parquet(scores, columns=["impression_id", "label", "weight"]).join(
        pl.read_parquet(truth), on="impression_id", how="left", maintain_order="left"
    )
    best = auc(table["label"].to_numpy(), table["p"].to_numpy(), table["weight"].to_numpy())
    if best is None:
        raise RequestError("the test rows hold one class only", "simulate more impressions")
    return best


def _has_header(path: Path) -> bool:
    if not path.is_file():
        raise RequestError(f"there is no file {path}", "pass a TSV file in Criteo's display-ads format")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.readline(100).split(b"\t")[0].strip() == b"label"
