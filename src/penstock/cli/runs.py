"""`penstock flow run`, `preview`, `runs`, `logs`, `cancel`, `gc`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from penstock.data.home import HOME
from penstock.data.leftovers import clear
from penstock.errors import PenstockError, RequestError, did_you_mean
from penstock.flow import collect
from penstock.flow import run as running
from penstock.flow.launcher import EVENTS, LOG
from penstock.flow.progress import said_seconds, told, watcher
from penstock.flow.records import RunRecord
from penstock.flow.store import RunStore
from penstock.flow.store_places import FOLDER, known_stores, store_folder

_FILE = click.argument("file", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
_SET = click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="Set a parameter; may be repeated.")
_PARAMS = click.option("--params", type=click.Path(path_type=Path), help="Parameters from a JSON or TOML file.")
_DATE = click.option("--date", metavar="YYYY-MM-DD[THH]", help="The value of ${run.date}; default: now, in UTC.")
_STORE = click.option(
    "--store", type=click.Path(path_type=Path), help="The run store, or the folder of the flow it belongs to."
)


@click.command()
@_FILE
@_SET
@_PARAMS
@_DATE
@click.option(
    "--only", multiple=True, metavar="NODE", help="Run this node alone, on what earlier runs left; may be repeated."
)
@click.option("--resume", is_flag=True, help="Go on with the newest unfinished run of this flow, date and parameters.")
@click.option("--force", is_flag=True, help="Run every node, whatever the cache says.")
@click.option("--jobs", type=click.IntRange(1), help="How many nodes may run at a time; default: the number of cores.")
@click.option("--dry-run", is_flag=True, help="Say what would run; run nothing.")
@_JSON
@click.pass_context
def run(
    ctx: click.Context, file: Path, sets: tuple[str, ...], params: Path | None, date: str | None, only: tuple[str, ...],
    resume: bool, force: bool, jobs: int | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a flow.

    Nodes whose inputs, parameters and code have not changed are taken from the cache.

    Example:  penstock flow run ctr.xml --set data=/logs --date 2026-01-31
    """
    request = running.Request(file, _pairs(sets), params, date, only, resume, force, jobs or 0)
    if dry_run:
        outcome = running.dry_run(request)
        _print_dry(outcome, as_json)
        return
    with watcher() as seen:
        outcome = running.run_flow(request, seen)
    for state in outcome.states:
        if state.status == "failed":
            _say_failure(state)
    if as_json:
        print(json.dumps(outcome.as_dict(), ensure_ascii=False, default=str))
    else:
        _print_outcome(outcome)
    ctx.exit(outcome.exit_status)


def _pairs(sets: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for each in sets:
        name, equals, value = each.partition("=")
        if not equals or not name.strip():
            raise RequestError(f"--set takes NAME=VALUE, not '{each}'", "for example --set data=/logs", "RUN018")
        pairs[name.strip()] = value
    return pairs


def _say_failure(state: Any) -> None:
    for problem in state.problems:
        where = f"{problem['file']}:{problem['line']}: {problem['code']} {problem['message']}"
        print(where + (f"\n  hint: {problem['hint']}" if problem["hint"] else ""), file=sys.stderr)
    if not state.problems:
        print(f"error: {PenstockError(state.error, state.hint, state.code)}", file=sys.stderr)


def _print_outcome(outcome: running.Outcome) -> None:
    for state in outcome.states:
        for step, values in state.result.get("metrics", {}).items():
            numbers = " ".join(
                f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items() if v is not None
            )
            print(f"{state.name}.{step}: {numbers}")
    for state in outcome.states:
        for name, output in state.outputs.items():
            rows = f"  ({output.rows:,} rows)" if output.rows is not None else ""
            print(f"{state.name}.{name} -> {output.path}{rows}")
    report = outcome.folder / "report.html"
    if report.exists():
        print(f"report: {report}")
    print(f"run {outcome.run}: {outcome.status} in {said_seconds(outcome.seconds)}")
    if outcome.status != "done":
        print(
            f"  hint: penstock flow run ... --resume goes on from here; penstock flow logs {outcome.run} shows the logs"
        )


def _print_dry(outcome: running.Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.as_dict(), ensure_ascii=False, default=str))
        return
    for state in outcome.states:
        print(f"{state.name}: {told(state) if state.cached_from else 'would run'}")


@click.command()
@_FILE
@click.argument("step", metavar="NODE.STEP")
@click.option("--rows", type=click.IntRange(1), default=20, show_default=True)
@_SET
@_PARAMS
@_DATE
@_JSON
def preview(
    file: Path, step: str, rows: int, sets: tuple[str, ...], params: Path | None, date: str | None, as_json: bool
) -> None:
    """Show the first rows of one step; nothing is written.

    Example:  penstock flow preview ctr.xml samples.kept --rows 5
    """
    request = running.Request(file, _pairs(sets), params, date)
    found = running.preview(request, step, rows)
    if as_json:
        print(json.dumps(list(found), ensure_ascii=False, default=str))
        return
    _print_table([dict(r) for r in found])


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print("no rows", file=sys.stderr)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        right = all(isinstance(r[name], int | float) or r[name] is None for r in rows)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if v is None else str(v) for v in row.values()))
    Console(highlight=False, markup=False, soft_wrap=False).print(table)


# --- looking at runs ---


@click.command()
@click.argument("run_", metavar="[RUN]", required=False)
@_STORE
@_JSON
def runs(run_: str | None, store: Path | None, as_json: bool) -> None:
    """List the runs, or show one of them: its nodes, and the inputs and code each was made from.

    Example:  penstock flow runs 20260131-120000-ab12cd
    """
    if run_ is None:
        _list_runs(store, as_json)
        return
    found, record = _find(run_, store)
    document = _run_document(found, record, lineage=True)
    if as_json:
        print(json.dumps(document, ensure_ascii=False, default=str))
        return
    print(f"run {record.run}  {document['status']}  {_when(record.started)}  {record.flow}  {record.flow_file}")
    for name, value in record.params.items():
        print(f"  {name} = {value}")
    for node in document["nodes"]:
        cached = f"  (cached, from run {node['cached_from']})" if node["cached"] else ""
        print(f"{node['name']}: {node['status']}  {said_seconds(node['seconds'])}{cached}")
        if node["error"]:
            print(f"    error: {node['error']}")
        for each in node["inputs"]:
            source = each.get("from") or each.get("path")
            print(f"    from {source}  {str(each.get('content') or each.get('stat'))[:24]}")
        for path, content in node["files"].items():
            print(f"    with {path}  {content[:12]}")
        for what, code in node["code"].items():
            print(f"    code {what} {code[:24]}")
        for name, output in node["outputs"].items():
            print(f"    made {name} -> {output['path']}  {output['content'][:12]}")


def _list_runs(store: Path | None, as_json: bool) -> None:
    documents = []
    for folder in _stores(store):
        found = RunStore.open(folder, create=False)
        documents += [_run_document(found, record, lineage=False) for record in found.runs()]
        found.close()
    documents.sort(key=lambda d: d["started"], reverse=True)
    if as_json:
        print(json.dumps(documents, ensure_ascii=False, default=str))
        return
    if not documents:
        print("no runs yet", file=sys.stderr)
    for d in documents:
        done = sum(n["status"] == "done" for n in d["nodes"])
        nodes, took = f"{done}/{len(d['nodes'])} nodes", said_seconds(d["seconds"])
        print(f"{d['run']}  {d['status']:<11}  {nodes}  {took:>9}  {d['flow']}  {d['flow_file']}")


def _run_document(store: RunStore, record: RunRecord, lineage: bool) -> dict[str, Any]:
    status: str = record.status
    if status == "running" and not store.runner(record.run):
        status = "interrupted"  # its runner was killed: nobody was left to say so
    outputs = store.outputs(record.run)
    nodes = []
    for node in store.nodes(record.run):
        own = {o: out for (n, o), out in outputs.items() if n == node.node}
        rows = [o.rows for o in own.values() if o.rows is not None]
        document: dict[str, Any] = {
            "name": node.node, "status": node.status, "seconds": round(node.seconds, 3),
            "cached": bool(node.cached_from), "rows": sum(rows) if rows else None, "error": node.error,
        }  # fmt: skip
        if lineage:
            document |= {
                "cached_from": node.cached_from, "key": node.key, "inputs": node.lineage.get("inputs", []),
                "files": node.lineage.get("files", {}), "code": node.lineage.get("code", {}),
                "conf": node.lineage.get("conf", {}), "metrics": node.result.get("metrics", {}),
                "outputs": {name: vars(o) for name, o in own.items()},
            }  # fmt: skip
        nodes.append(document)
    ended = record.ended or (time.time() if status == "running" else record.started)
    report = store.run_folder(record.run) / "report.html"
    return {
        "run": record.run, "flow": record.flow, "flow_file": record.flow_file, "date": record.date,
        "params": dict(record.params), "status": status, "started": record.started,
        "seconds": round(ended - record.started, 3), "nodes": nodes, "report": str(report) if report.exists() else None,
        "store": str(store.folder),
    }  # fmt: skip


@click.command()
@click.argument("run_", metavar="RUN")
@click.argument("node", required=False)
@click.option("--follow", "-f", is_flag=True, help="Keep printing until the run ends.")
@_STORE
@_JSON
def logs(run_: str, node: str | None, follow: bool, store: Path | None, as_json: bool) -> None:
    """Print what the nodes of a run printed, attempt by attempt.

    Example:  penstock flow logs 20260131-120000-ab12cd model --follow
    """
    found, record = _find(run_, store)
    names = [n.node for n in found.nodes(record.run)]
    if node is not None and node not in names:
        hint = did_you_mean(node, names, f"nodes: {', '.join(names)}")
        raise RequestError(f"run {record.run} has no node '{node}'", hint, "RUN014")
    wanted = [node] if node else names
    if as_json:
        lines = [
            {"node": n, "attempt": a, "text": p.read_text(errors="replace")} for n, a, p in _logs(found, record, wanted)
        ]
        print(json.dumps(lines, ensure_ascii=False))
        return
    shown: dict[Path, int] = {}
    while True:
        live = found.runner(record.run)
        for name, attempt, path in _logs(found, record, wanted):
            with path.open("rb") as stream:
                stream.seek(shown.get(path, 0))
                text = stream.read()
            if text:
                if path not in shown and (len(wanted) > 1 or attempt > 1):
                    print(f"==> {name}, attempt {attempt}", flush=True)
                shown[path] = shown.get(path, 0) + len(text)
                sys.stdout.write(text.decode("utf-8", "replace"))
                sys.stdout.flush()
        if not follow or not live:
            return
        time.sleep(0.3)


def _logs(store: RunStore, record: RunRecord, nodes: list[str]) -> Iterator[tuple[str, int, Path]]:
    for name in nodes:
        folder = store.run_folder(record.run) / "nodes" / name
        attempts = sorted(folder.glob("attempt-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        for each in attempts:
            for file in (LOG, EVENTS):
                if file == LOG and (each / file).exists():
                    yield name, int(each.name.rpartition("-")[2]), each / file


@click.command()
@click.argument("run_", metavar="RUN")
@_STORE
@_JSON
def cancel(run_: str, store: Path | None, as_json: bool) -> None:
    """Stop a run: its nodes end, its outputs stay as they were, `--resume` can go on later.

    Example:  penstock flow cancel 20260131-120000-ab12cd
    """
    found, record = _find(run_, store)
    pid = found.runner(record.run)
    if not pid:
        raise RequestError(f"run {record.run} is not running", "penstock flow runs lists what is", "RUN009")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while found.runner(record.run) and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped = not found.runner(record.run)
    if as_json:
        print(json.dumps({"run": record.run, "stopped": stopped}))
    else:
        print(f"run {record.run} {'is stopped' if stopped else 'was asked to stop and is still ending'}")


@click.command()
@click.option("--keep", type=click.IntRange(0), default=5, show_default=True, help="Keep this many runs of each flow.")
@click.option("--days", type=click.FloatRange(0), default=14.0, show_default=True, help="Keep runs younger than this.")
@click.option("--yes", is_flag=True, help="Really remove them; without it only the list is printed.")
@_STORE
@_JSON
def gc(keep: int, days: float, yes: bool, store: Path | None, as_json: bool) -> None:
    """Remove old runs, and what killed runs left beside their outputs. A dry run unless --yes is given.

    The newest finished run of each flow stays, and so does what the cache needs.

    Example:  penstock flow gc --keep 3 --days 7 --yes
    """
    documents: list[dict[str, Any]] = []
    asides: list[dict[str, Any]] = []
    for folder in _stores(store):
        found = RunStore.open(folder, create=False)
        for left in collect.left_aside(found):  # before the runs that know of it go
            asides.append({"path": str(left.path), "size_bytes": left.size_bytes, "removed": yes and clear(left)})
        for each in collect.candidates(found, keep, days):
            removed = collect.remove(found, each) if yes else False
            documents.append({"run": each.run.run, "flow": each.run.flow, "status": each.run.status,
                              "started": each.run.started, "size_bytes": each.size_bytes,
                              "removed": removed})  # fmt: skip
        if yes:
            for name in collect.orphans(found):
                shutil.rmtree(found.run_folder(name), ignore_errors=True)
        found.close()
    if as_json:
        print(json.dumps({"removed": yes, "runs": documents, "left_aside": asides}))
        return
    for d in documents:
        print(f"{d['run']}  {_when(d['started'])}  {d['size_bytes']:>12,} bytes  {d['flow']}")
    for a in asides:
        print(f"{a['path']}  {a['size_bytes']:>12,} bytes  left by a run that was killed")
    total = sum(d["size_bytes"] for d in documents + asides)
    verb = "removed" if yes else "would be removed"
    also = f" and {len(asides)} left aside" if asides else ""
    print(f"{len(documents)} run{'s' if len(documents) != 1 else ''}{also}, {total:,} bytes {verb}")
    if (documents or asides) and not yes:
        print("  hint: --yes removes them")


def _stores(given: Path | None) -> list[Path]:
    """The stores a command without a flow file means: the one given, $PENSTOCK_HOME, the one here, else all known."""
    if given is not None:
        inner = given if (given / "store.sqlite").exists() else store_folder(given)
        return [inner if (inner / "store.sqlite").exists() else given / FOLDER]
    if os.environ.get(HOME):
        return [store_folder(Path.cwd())]
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER / "store.sqlite").exists():
            return [folder / FOLDER]
    return known_stores()


def _find(run_: str, given: Path | None) -> tuple[RunStore, RunRecord]:
    """The run of that name in the nearest store, else in any store of this machine."""
    tried: RequestError | None = None
    for folder in dict.fromkeys([*_stores(given), *([] if given else known_stores())]):
        try:
            found = RunStore.open(folder, create=False)
            return found, found.run(run_)
        except RequestError as error:
            tried = tried or error
    raise tried or RequestError(f"there is no run '{run_}'", "no flow has been run on this machine yet", "RUN010")


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
