"""One run of one plan: nodes start when what they need is there, and end as done, failed or interrupted.

The loop is single-threaded. It waits in `Launcher.poll`, writes every change to the `RunStore` before acting on it, and
tells a `Watcher`. A runner may be killed between any two lines: what is done is in the store or in a result.json.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.engines.base import engine
from penstock.engines.guard import said_bytes
from penstock.engines.spec import NodeResult, NodeSpec
from penstock.errors import PenstockError
from penstock.flow import cache
from penstock.flow.launcher import EVENTS, GRACE_S, SPEC, Ended, Job, Launcher
from penstock.flow.node_state import NodeState, Watcher, read_result, stored_outputs
from penstock.flow.plan import Plan, PlannedNode
from penstock.flow.records import NodeRecord, NodeStatus, RunStatus, StoredOutput
from penstock.flow.replaced import in_the_way, refusal, written_as
from penstock.flow.store import RunStore
from penstock.operators.base import Output
from penstock.operators.secrets import mask, reveal

#: Between attempts: 1 s, 2 s, 4 s ... up to a minute, each up to half as long again, so that retries spread out.
BACKOFF_S = 1.0
BACKOFF_MAX_S = 60.0
#: Less than this on the run store's disk, and a worker could not write why it failed.
NO_SPACE_BYTES = 64 << 10
#: How often progress is read and deadlines are looked at.
TICK_S = 0.1


class Execution:
    """Runs a plan to its end. `go` may be called once."""

    def __init__(
        self, plan: Plan, run: str, store: RunStore, launcher: Launcher, watcher: Watcher, *,
        jobs: int, force: bool = False, only: tuple[str, ...] = (), given: Mapping[str, StoredOutput] | None = None,
        before: Mapping[str, NodeRecord] | None = None,
    ) -> None:  # fmt: skip
        """`given`: outputs of nodes outside `only`. `before`: how a resumed run's nodes stood."""
        self.plan, self.run, self.store, self.launcher, self.watcher = plan, run, store, launcher, watcher
        self.jobs, self.force = jobs, force
        self.folder = store.run_folder(run)
        self.states = {n.name: NodeState(n) for n in plan.nodes if not only or n.name in only}
        self.made: dict[str, StoredOutput] = dict(given or {})
        self.before = dict(before or {})
        self.stops = 0

    def go(self) -> RunStatus:
        """Run every node that can; the status of the whole. Leaves the run's row in the store ended."""
        self.watcher.started(self.run, tuple(self.states), self.folder)
        wake, woken = os.pipe()
        for fd in (wake, woken):
            os.set_blocking(fd, False)
        try:
            with self._stoppable(woken):
                self._loop(wake)
        finally:
            os.close(wake)
            os.close(woken)
        status: RunStatus = "done"
        if self.stops:
            status = "interrupted"
        elif any(s.status != "done" for s in self.states.values()):
            status = "failed"
        for state in self.states.values():
            if state.status == "waiting":
                state.status = "interrupted" if self.stops else "skipped"
        self.store.end_run(self.run, status)
        return status

    @contextmanager
    def _stoppable(self, woken: int) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask the run to stop. Signals are the main thread's; elsewhere the caller has them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.signal(number, self._asked_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        old_fd = signal.set_wakeup_fd(woken)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    def _loop(self, wake: int) -> None:
        while True:
            if not self.stops and not any(s.status == "failed" for s in self.states.values()):
                self._start_ready()
            running = [s for s in self.states.values() if s.status == "running"]
            waiting = [s for s in self.states.values() if s.status == "waiting" and s.not_before > time.time()]
            if not running and (not waiting or self.stops):
                return
            for ended in self.launcher.poll(TICK_S, (wake,)):
                self._ended(self.states[ended.key], ended)
            with suppress(BlockingIOError):
                os.read(wake, 4096)
            for state in running:
                self._read_events(state)
                self._look_at_clock(state)

    # --- starting ---

    def _start_ready(self) -> None:
        """Start what can start; nodes that need not run are done at once, which may make others ready."""
        again = True
        while again:
            again = False
            ready = [s for s in self.states.values() if s.status == "waiting" and self._is_ready(s)]
            for state in sorted(ready, key=lambda s: -s.plan.priority):
                if sum(s.status == "running" for s in self.states.values()) >= self.jobs:
                    return
                again = self._take_up(state) or again
                if state.status == "failed":
                    return

    def _is_ready(self, state: NodeState) -> bool:
        needs = (self.states[n] for n in state.plan.needs if n in self.states)
        return state.not_before <= time.time() and all(n.status == "done" for n in needs)

    def _take_up(self, state: NodeState) -> bool:
        """Reuse or start one node; True when it is done already."""
        node = state.plan
        try:
            if state.keyed is None:
                state.keyed = cache.key_of(self.plan, node, self.made)
            if self._reuse(state):
                return True
            self._refuse_to_delete(node)
            self._start(state)
        except PenstockError as error:
            self._fail(state, error.message, error.hint, error.code)
        except OSError as error:
            self._fail(state, f"node '{node.name}' cannot start: {error}", "is the disk full?", "RUN011")
        return False

    def _refuse_to_delete(self, node: PlannedNode) -> None:
        """Raise `PenstockError` where an output would delete what is no data; the check saw the folders of its time."""
        for name, operator in node.operators.items():
            if not isinstance(operator, Output):
                continue
            place = operator.model_copy(update={"path": reveal(operator.path)})
            found = in_the_way(place)
            if found and not self.store.wrote(written_as(place.path)) and not self._tried(node):
                message, hint = refusal(f"{node.name}.{name}", place.path, found)
                raise PenstockError(message, hint, "DATA024")

    def _tried(self, node: PlannedNode) -> bool:
        """Whether an attempt of this run was let through before: what lies there may be what it left."""
        return any(a["node"] == node.name for a in self.store.attempts(self.run))

    def _paths(self, node: PlannedNode) -> dict[str, str]:
        """output -> where it goes in this run."""
        inside = self.folder / "outputs" / node.name
        return {name: o.path or str(inside / o.file) for name, o in node.outputs.items() if o.kind != "none"}

    def _reuse(self, state: NodeState) -> bool:
        assert state.keyed is not None
        before = self.before.get(state.name)
        if before and before.key == state.keyed.key and self._keep(state, before):
            return True
        if self.force or not state.keyed.cacheable:
            return False
        entry = self.store.cached(state.keyed.key)
        outputs = cache.take_over(state.plan, entry, self._paths(state.plan)) if entry else None
        if entry is None or outputs is None:
            return False
        state.cached_from = entry.run
        state.started = time.time()
        self._done(state, entry.result, outputs)
        return True

    def _keep(self, state: NodeState, before: NodeRecord) -> bool:
        """What this run finished under an earlier runner, be it only to the last line of result.json."""
        if before.status == "done":
            result: Mapping[str, Any] = before.result
            outputs = {o: out for (n, o), out in self.store.outputs(self.run).items() if n == state.name}
        else:
            attempts = [a["attempt"] for a in self.store.attempts(self.run) if a["node"] == state.name]
            left = read_result(self._attempt_folder(state.name, max(attempts, default=0)))
            if left is None or left.status != "done":
                return False
            result = left.model_dump(mode="json")
            outputs = stored_outputs(left)
            # Nobody recorded how they looked when they were left: only their content can tell.
            if not all(cache.stands(replace(o, stat="")) for o in outputs.values()):
                return False
        if not all(cache.stands(o) for o in outputs.values()):
            return False
        state.kept, state.cached_from = True, before.cached_from
        state.started, state.ended = before.started or 0.0, before.ended or 0.0
        self._done(state, result, outputs)
        return True

    def _start(self, state: NodeState) -> None:
        node = state.plan
        assert state.keyed is not None
        if not state.attempt:
            earlier = [a["attempt"] for a in self.store.attempts(self.run) if a["node"] == node.name]
            state.attempt = max(earlier, default=0)
        state.attempt += 1
        state.tries += 1
        folder = self._attempt_folder(node.name, state.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: output.path for name, output in self.made.items()}
        own = {f"{node.name}.{name}": path for name, path in self._paths(node).items()}
        threads = int(node.conf.get("threads", 0) or math.ceil(node.cpus))
        spec = NodeSpec(
            run=self.run, node=node.name, engine=node.engine, attempt=state.attempt, flow_file=self.plan.flow_file,
            flow_dir=self.plan.flow_dir, folder=str(folder), plans=str(self.store.folder / "plans"),
            kept=str(self._kept_folder(state)), conf=node.conf, args=node.args,
            steps=node.bind({**paths, **own}), values=self.plan.values,
            node_outputs={name: paths[name] for name in (*node.from_nodes.values(), *node.node_outputs)},
            lineage={"run": self.run, "flow": self.plan.name, "node": node.name, "key": state.keyed.key,
                     **state.keyed.lineage},
            threads=threads, memory_bytes=node.memory_bytes,
        )  # fmt: skip
        (folder / SPEC).write_text(spec.model_dump_json(indent=1))
        environment = {name: reveal(value) for name, value in node.env.items()}
        if threads and node.engine == "local":
            environment.setdefault("POLARS_MAX_THREADS", str(threads))  # read once, when Polars is imported
        job = Job(node.name, node.engine, engine(node.engine).python(node.conf), folder, environment, node.fresh,
                  node.memory_bytes)  # fmt: skip
        state.status, state.started, state.events_at, state.stopping = "running", time.time(), 0, ""
        state.deadline = time.time() + node.timeout_s if node.timeout_s else math.inf
        state.stop_by = math.inf
        # The row comes first: a worker that outlives us is then known to whoever resumes the run.
        self.store.start_node(self.run, node.name, state.keyed.key, state.attempt, 0, state.keyed.lineage)
        pid = self.launcher.start(job)
        self.store.set_pid(self.run, node.name, state.attempt, pid)
        self.watcher.node(state)

    def _attempt_folder(self, node: str, attempt: int) -> Path:
        return self.folder / "nodes" / node / f"attempt-{attempt}"

    def _kept_folder(self, state: NodeState) -> Path:
        """What attempts hand on to one another, as long as the node's inputs, parameters and code are the same."""
        assert state.keyed is not None
        return self.folder / "nodes" / state.name / f"kept-{state.keyed.key[:16]}"

    # --- while they run ---

    def _read_events(self, state: NodeState) -> None:
        file = self._attempt_folder(state.name, state.attempt) / EVENTS
        with suppress(OSError), file.open("rb") as stream:
            stream.seek(state.events_at)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                state.events_at += len(line)
                with suppress(ValueError):
                    self.watcher.progress(state, json.loads(line))

    def _look_at_clock(self, state: NodeState) -> None:
        if state.status != "running":
            return
        now = time.time()
        if not state.stopping:
            if self.stops:
                state.stopping = "interrupted"
            elif now > state.deadline:
                state.stopping = "timeout"
            if state.stopping:
                self.launcher.cancel(state.name)
                state.stop_by = now + GRACE_S
        elif now > state.stop_by or self.stops > 1:
            self.launcher.cancel(state.name, force=True)
            state.stop_by = math.inf

    # --- ending ---

    def _ended(self, state: NodeState, ended: Ended) -> None:
        folder = self._attempt_folder(state.name, state.attempt)
        self._read_events(state)
        result = read_result(folder)
        for left in folder.iterdir():
            if left.is_dir():  # spools and scratch
                shutil.rmtree(left, ignore_errors=True)
        if result is not None and result.status == "done":
            self.store.end_attempt(self.run, state.name, state.attempt, "done")
            shutil.rmtree(self._kept_folder(state), ignore_errors=True)
            self._done(state, result.model_dump(mode="json"), stored_outputs(result))
            return
        if state.stopping == "interrupted":
            self.store.end_attempt(self.run, state.name, state.attempt, "interrupted")
            self._fail(state, "interrupted", "", "", "interrupted")
            return
        error, hint, code = self._why(state, ended, result)
        self.store.end_attempt(self.run, state.name, state.attempt, error)
        may_retry = state.tries <= state.plan.retries and not (result and result.problems) and not self.stops
        if not may_retry:
            state.problems = result.problems if result else ()
            self._fail(state, error, hint, code)
            return
        wait = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (state.tries - 1)) * (1 + random.random() / 2)  # noqa: S311
        state.status, state.not_before = "waiting", time.time() + wait
        left_tries = state.plan.retries - state.tries + 1
        self.watcher.note(f"{state.name}: {error}; again in {wait:.0f} s ({left_tries} more)")

    def _why(self, state: NodeState, ended: Ended, result: NodeResult | None) -> tuple[str, str, str]:
        """(message, hint, code) of a node that did not end well."""
        name = state.name
        if state.stopping == "timeout":
            hint = "raise timeout_s on the node, or look in its log for where the time went"
            return f"node '{name}' was stopped: it ran longer than timeout_s={state.plan.timeout_s:g}", hint, "RUN004"
        if ended.over_memory:
            limit = said_bytes(state.plan.memory_bytes)
            used = said_bytes(ended.over_memory)
            return (f"node '{name}' ran out of memory: it used {used} and its limit is {limit}",
                    'give the node more with memory="..."', "RUN003")  # fmt: skip
        if result is not None:
            return result.error, result.hint, result.code
        if shutil.disk_usage(self.folder).free < NO_SPACE_BYTES:
            hint = "free some space, then go on with --resume; the outputs are as they were"
            return f"node '{name}' died: the disk of the run store {self.store.folder} is full", hint, "RUN011"
        see = f"penstock flow logs {self.run} {name} shows what it printed last"
        if ended.status < 0:
            said = signal.Signals(-ended.status).name
            if -ended.status == signal.SIGKILL:
                see += '; the system kills what takes too much memory (see dmesg): memory="..." sets a limit'
            return f"node '{name}' died: its process was ended by {said}", see, "RUN001"
        return (
            f"node '{name}' died: its process ended with exit status {ended.status} and left no result",
            see,
            "RUN001",
        )

    def _done(self, state: NodeState, result: Mapping[str, Any], outputs: dict[str, StoredOutput]) -> None:
        assert state.keyed is not None
        state.result, state.outputs, state.status = result, outputs, "done"
        state.ended = state.ended or time.time()
        if not state.kept:
            state.ended = time.time()
        for name, output in outputs.items():
            self.made[f"{state.name}.{name}"] = output
        self.store.finish_node(
            self.run, state.name, state.keyed.key, result, outputs, cached_from=state.cached_from,
            cacheable=state.keyed.cacheable, lineage=state.keyed.lineage, started=state.started, ended=state.ended,
        )  # fmt: skip
        self.watcher.node(state)

    def _fail(self, state: NodeState, error: str, hint: str, code: str, status: NodeStatus = "failed") -> None:
        state.status, state.ended = status, time.time()
        state.error, state.hint, state.code = mask(error), mask(hint), code
        self.store.fail_node(self.run, state.name, status, state.error, state.hint, code)
        self.watcher.node(state)
