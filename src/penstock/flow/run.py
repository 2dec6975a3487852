"""A request to run a flow, from its file to the outcome: read, resolve, check, plan, claim, execute, report."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.data.stores import is_remote
from penstock.data.targets import content_hash
from penstock.engines.base import engine
from penstock.engines.spec import NodeSpec, Preview
from penstock.errors import PenstockError, Problem, ProblemsFound, RequestError, did_you_mean
from penstock.flow import cache
from penstock.flow.check import check
from penstock.flow.claims import Claims, written_paths
from penstock.flow.execution import Execution
from penstock.flow.launcher import SPEC, Job, LocalLauncher, end_strays
from penstock.flow.model import Flow
from penstock.flow.node_state import NodeState, Watcher, read_result
from penstock.flow.plan import Plan, plan
from penstock.flow.reader import read
from penstock.flow.records import NodeRecord, RunRecord, StoredOutput
from penstock.flow.report import write_report
from penstock.flow.store import RunStore, new_run_id
from penstock.flow.store_places import remember, store_folder
from penstock.flow.values import flow_dir, resolve
from penstock.operators.secrets import reveal


@dataclass(frozen=True)
class Request:
    """What a user asks for; `set` beats `params_file` beats defaults."""

    file: Path
    set: Mapping[str, str] = field(default_factory=dict)
    params_file: Path | None = None
    date: str | None = None
    only: tuple[str, ...] = ()
    resume: bool = False
    force: bool = False
    jobs: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended, or in a dry run what it would do."""

    run: str
    status: str
    seconds: float
    states: tuple[NodeState, ...]
    folder: Path
    resumed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of `flow run --json`."""
        return {
            "run": self.run,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "nodes": [_node_document(s) for s in self.states],
            "metrics": {
                f"{s.name}.{step}": dict(values)
                for s in self.states
                for step, values in s.result.get("metrics", {}).items()
            },
            "outputs": {f"{s.name}.{name}": o.path for s in self.states for name, o in s.outputs.items()},
            "report": str(self.folder / "report.html") if (self.folder / "report.html").exists() else None,
        }

    @property
    def exit_status(self) -> int:
        return {"done": 0, "dry-run": 0, "interrupted": 130}.get(self.status, 1)


def _node_document(state: NodeState) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": state.name,
        "status": state.status,
        "seconds": round(state.seconds, 3),
        "cached": bool(state.cached_from),
        "rows": state.rows,
        "steps": dict(state.result.get("rows", {})),
    }
    if state.error:
        found |= {"error": state.error, "hint": state.hint, "code": state.code, "problems": list(state.problems)}
    return found


def prepare(request: Request, run: str = "check", date: str | None = None) -> tuple[Flow, Plan]:
    """Read, resolve, check and plan; nothing has run. Raises `ProblemsFound` with every problem."""
    flow = read(request.file)
    values = resolve(flow, dict(request.set), request.params_file, date or request.date, run)
    return flow, plan(check(flow, values))


def run_flow(request: Request, watcher: Watcher) -> Outcome:
    """Run it. Raises `RequestError` before anything has run; afterwards failures are in the outcome."""
    started = time.time()
    run = new_run_id()
    flow, todo = prepare(request, run)
    _known(todo, request.only)
    folder = store_folder(flow_dir(flow))
    store = RunStore.open(folder)
    remember(folder)
    try:
        with _taken_up(store, todo, request, watcher, run) as (record, before):
            resumed = record.run != run
            if resumed:
                flow, todo = prepare(request, record.run, record.date)
            given = _given(todo, store, request.only)
            claims = Claims(
                written_paths(n for n in todo.nodes if not request.only or n.name in request.only), record.run
            )
            names = [n.name for n in todo.nodes if not request.only or n.name in request.only]
            if resumed:
                end_strays(record.run, [(a["pid"], a["started"]) for a in store.attempts(record.run) if a["pid"]])
                store.reopen_run(record.run, names)
            else:
                store.add_run(record, names)
            launcher = LocalLauncher(store.run_folder(record.run))
            execution = Execution(
                todo, record.run, store, launcher, watcher, jobs=request.jobs or len(os.sched_getaffinity(0)),
                force=request.force, only=request.only, given=given, before=before,
            )  # fmt: skip
            try:
                status = execution.go()
            finally:
                launcher.close()
                claims.release()
            outcome = Outcome(
                record.run, status, time.time() - started, tuple(execution.states.values()),
                store.run_folder(record.run), resumed,
            )  # fmt: skip
            try:
                write_report(flow, record, outcome.states, status, outcome.folder)
            except OSError as error:
                watcher.note(f"the report could not be written: {error}")
            return outcome
    finally:
        store.close()


@contextmanager
def _taken_up(
    store: RunStore, todo: Plan, request: Request, watcher: Watcher, run: str
) -> Iterator[tuple[RunRecord, dict[str, NodeRecord]]]:
    """The run to work on, locked: a new one, or with `--resume` the newest unfinished one like it."""
    record = RunRecord(run, todo.name, todo.flow_file, todo.values["run.date"], todo.params, request.only,
                       "running", time.time())  # fmt: skip
    before: dict[str, NodeRecord] = {}
    if request.resume:
        earlier = _unfinished(store, record, dated=request.date is not None)
        if earlier is None:
            watcher.note("nothing to resume: this flow has no unfinished run with this date and these parameters")
        else:
            record = earlier
            before = {n.node: n for n in store.nodes(earlier.run)}
    lock = store.lock(record.run)
    if lock is None:
        raise RequestError(
            f"run {record.run} is still running (process {store.runner(record.run)})",
            f"penstock flow logs {record.run} --follow watches it, penstock flow cancel {record.run} stops it",
            "RUN009",
        )
    try:
        yield record, before
    finally:
        os.close(lock)


def _unfinished(store: RunStore, wanted: RunRecord, dated: bool) -> RunRecord | None:
    """The newest run of the same flow, parameters and date that is not done. Without --date: of the same day."""
    for record in store.runs(wanted.flow_file):
        same_date = record.date == wanted.date if dated else record.date[:10] == wanted.date[:10]
        if record.flow == wanted.flow and record.params == wanted.params and same_date and record.only == wanted.only:
            return record if record.status != "done" else None
    return None


def _known(todo: Plan, only: tuple[str, ...]) -> None:
    names = [n.name for n in todo.nodes]
    for name in only:
        if name not in names:
            hint = did_you_mean(name, names, f"nodes: {', '.join(names)}")
            raise RequestError(f"there is no node '{name}' in flow '{todo.name}'", hint, "RUN014")


def _given(todo: Plan, store: RunStore, only: tuple[str, ...]) -> dict[str, StoredOutput]:
    """What nodes outside `only` have left for those inside. Raises `RequestError` when some of it is not there."""
    given: dict[str, StoredOutput] = {}
    for node in todo.nodes:
        for source in (*node.from_nodes.values(), *node.node_outputs) if node.name in only else ():
            maker, _, name = source.partition(".")
            if maker in only or source in given:
                continue
            found = next((o for o in store.latest_output(todo.flow_file, maker, name) if cache.stands(o)), None)
            path = todo.node(maker).outputs[name].path
            if found is None and path and not is_remote(path) and Path(path).exists():
                found = StoredOutput(path, content=content_hash(path), stat=cache.stat_of(path))
            if found is None:
                raise RequestError(
                    f"node '{node.name}' reads {source}, which no run has left yet (or it has changed since)",
                    f"run '{maker}' first: --only {maker}, or the whole flow",
                    "RUN012",
                )
            given[source] = found
    return given


def dry_run(request: Request) -> Outcome:
    """What `run_flow` would do: which nodes the cache answers for. Writes nothing."""
    started = time.time()
    flow, todo = prepare(request)
    _known(todo, request.only)
    folder = store_folder(flow_dir(flow))
    states = []
    made: dict[str, StoredOutput] = {}
    store = RunStore.open(folder) if (folder / "store.sqlite").exists() else None
    if request.only and store is not None:
        made |= _given(todo, store, request.only)
    for node in todo.nodes:
        if request.only and node.name not in request.only:
            continue
        state = NodeState(node)
        states.append(state)
        needed = {*node.from_nodes.values(), *node.node_outputs}
        if store is None or request.force or not needed <= set(made):
            continue
        keyed = cache.key_of(todo, node, made)
        entry = store.cached(keyed.key) if keyed.cacheable else None
        if entry is not None and all(cache.stands(o) for o in entry.outputs.values()):
            state.cached_from, state.result, state.outputs = entry.run, entry.result, dict(entry.outputs)
            made |= {f"{node.name}.{name}": o for name, o in entry.outputs.items()}
    if store is not None:
        store.close()
    return Outcome("", "dry-run", time.time() - started, tuple(states), folder)


def preview(request: Request, target: str, rows: int) -> tuple[Mapping[str, Any], ...]:
    """The first rows of NODE.STEP or NODE.STEP.PORT (of an output: of what it writes), computed now; writes nothing."""
    flow, todo = prepare(request)
    name, _, step = target.partition(".")
    _known(todo, (name,))
    node = todo.node(name)
    if step.split(".")[0] not in [s.name for s in node.steps]:
        hint = did_you_mean(step, [s.name for s in node.steps], f"steps: {', '.join(s.name for s in node.steps)}")
        raise RequestError(f"there is no step '{step}' in node '{name}'", hint, "RUN014")
    written = next((s for s in node.steps if s.kind == "output" and s.name == step), None)
    if written is not None and node.engine != "command":
        step = written.attrs.get("from", step)
    store = RunStore.open(store_folder(flow_dir(flow)))
    with tempfile.TemporaryDirectory(prefix="penstock-preview-") as scratch:
        folder = Path(scratch)
        given = _given(todo, store, (name,))
        store.close()
        paths = {source: output.path for source, output in given.items()}
        own = {f"{name}.{o.name}": str(folder / o.file) for o in node.outputs.values()}
        spec = NodeSpec(
            run="preview", node=name, engine=node.engine, flow_file=todo.flow_file, flow_dir=todo.flow_dir,
            folder=scratch, plans=str(store.folder / "plans"), conf=node.conf, args=node.args,
            steps=node.bind({**paths, **own}), values=todo.values,
            node_outputs=paths, memory_bytes=node.memory_bytes, preview=Preview(step=step, rows=rows),
        )  # fmt: skip
        (folder / SPEC).write_text(spec.model_dump_json())
        environment = {k: reveal(v) for k, v in node.env.items()}
        launcher = LocalLauncher(folder, forkserver=False)
        try:
            launcher.start(Job(name, node.engine, engine(node.engine).python(node.conf), folder, environment, True,
                               node.memory_bytes))  # fmt: skip
            while not launcher.poll(1.0):
                pass
        finally:
            launcher.close()
        result = read_result(folder)
    if result is None:
        raise PenstockError(
            f"node '{name}' died while its preview was computed", "run the flow to see its log", "RUN001"
        )
    if result.problems:
        raise ProblemsFound(Problem(**p) for p in result.problems)
    if result.status != "done":
        kind = RequestError if result.code == "RUN101" else PenstockError  # RUN101: no such port
        raise kind(result.error, result.hint, result.code)
    return result.preview or ()
