"""`penstock demo`: the main job, whole, on simulated or real logs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from penstock.errors import Interrupted, PenstockError

#: How long the closed loop goes on where nobody says.
LOOP_S = 40.0


@click.command(epilog="Example:  penstock demo --out demo-out && penstock flow run demo-out/ctr.xml")
@click.option(
    "--data", type=click.Path(path_type=Path), help="A TSV file in Criteo's display-ads format, plain or .gz."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="The folder that logs, flow, model and report go to.",
)
@click.option(
    "--loop",
    "loop_s",
    type=click.FloatRange(min=0),
    default=LOOP_S,
    show_default=True,
    help="Seconds that visitors come to the closed loop; 0 leaves it out.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")
def demo(data: Path | None, out: Path, loop_s: float, as_json: bool) -> None:
    """Run the main job: raw logs, samples, features, GBDT+LR, evaluation, report; serve it; close the loop.

    The bundle is pushed to a registry, served over REST and gRPC, its scores compared with predict's, and a second
    version canaried, promoted and rolled back. Everything is stopped at the end; all of it lies in --out.

    Then the closed loop: simulated visitors ask a host and click, a join makes samples of it, a trainer learns and
    publishes, the host follows. Half way the visitors' taste changes. --out/report.html has the curves.

    Without --data it simulates 200,000 impressions whose true click probabilities are known, and says how close the
    model comes to the best possible. Change --out/ctr.xml and run it again: what has not changed is reused.
    """
    from penstock.demo import run_criteo, run_loop, run_simulated
    from penstock.demo.service import go_live
    from penstock.flow import run as running
    from penstock.flow.progress import watcher

    def tell(message: str) -> None:
        click.echo(message, err=True)

    def run_flow(flow: Path, values: Mapping[str, str]) -> Mapping[str, Any]:
        with watcher() as seen:
            done = running.run_flow(running.Request(flow, values), seen)
        failed = next((s for s in done.states if s.status == "failed"), None)
        if failed:
            said = failed.error or (failed.problems[0]["message"] if failed.problems else "see its log")
            hint = failed.hint or f"penstock flow logs {done.run} {failed.name}"
            raise PenstockError(f"node '{failed.name}' failed: {said}", hint, failed.code)
        if done.status != "done":
            raise Interrupted(f"the run is {done.status}", f"penstock flow run {flow} --resume goes on from here")
        return done.as_dict()

    start = time.perf_counter()
    outcome = run_criteo(data, out, run_flow) if data else run_simulated(out, run_flow, tell)
    served = None if data else go_live(outcome.folder, outcome.run, tell)
    looped = None if data or not loop_s else run_loop(outcome.folder, run_flow, tell, loop_s, as_json)
    outcome = replace(outcome, seconds=time.perf_counter() - start)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "status": "ok",
                    "auc": outcome.auc,
                    "best": outcome.best,
                    "lift_share": outcome.lift_share,
                    "seconds": round(outcome.seconds, 1),
                    "folder": str(outcome.folder),
                    "run": outcome.run,
                    "served": {"rows": served.rows, "furthest": served.furthest} if served else None,
                    "loop": {**looped.figures.as_dict(), "report": str(looped.report)} if looped else None,
                }
            )
        )
        return
    for name, value in outcome.run["metrics"]["model.quality"].items():
        click.echo(f"  {name:<12} {value}")
    click.echo(f"  flow and model: {outcome.folder}   report: {outcome.run['report']}")
    if served:
        click.echo(served.table())
    if looped:
        click.echo(looped.table())
    click.echo(outcome.line())
