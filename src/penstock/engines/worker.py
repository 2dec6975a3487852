"""One node's process: `PYTHON -m penstock.engines.worker SPEC.json`.

It reads a `NodeSpec`, prints one event a line on its stdout, and leaves `result.json` beside the spec. What the
node's own code prints goes to stderr, which the launcher keeps as the log; so does every traceback.
Exit status: 0 done, 1 the node failed (result.json says why), 2 the spec cannot be read, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from pydantic import ValidationError

from penstock.engines.base import engine
from penstock.engines.guard import MemoryGuard, die_with_parent, limit_address_space, said_bytes
from penstock.engines.spec import NodeResult, NodeSpec
from penstock.errors import Interrupted, PenstockError, ProblemsFound
from penstock.operators.secrets import PREFIX, mask

#: The launcher's pid, so that a worker whose launcher is gone already stops at once.
PARENT = "PENSTOCK_WORKER_PARENT"
RESULT = "result.json"
#: Progress of one step is told at most this often.
PROGRESS_EVERY_S = 0.1
#: A worker asked to stop may be inside a long native call; after this it ends without waiting for it.
STOP_WITHIN_S = 2.0


class NdjsonEvents:
    """Events as lines on a stream; safe from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}, ensure_ascii=False, default=str)
        with self._lock:
            self._stream.write(mask(line) + "\n")
            self._stream.flush()

    def progress(self, step: str, message: str = "", rows: int = 0, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if now - self._told.get(step, 0.0) < PROGRESS_EVERY_S and not (total and done == total):
            return
        self._told[step] = now
        self.emit("progress", step=step, message=message, rows=rows, done=done, total=total)

    def log(self, message: str) -> None:
        self.emit("log", message=message)


class MaskedLog(io.TextIOWrapper):
    """A text stream that hides the values of secrets. Used only where there are secrets to hide."""

    def write(self, text: str) -> int:
        super().write(mask(text))
        return len(text)


def main(argv: list[str]) -> int:
    """The door of a fresh interpreter."""
    if len(argv) != 1:
        print("usage: python -m penstock.engines.worker SPEC.json", file=sys.stderr)
        return 2
    parent = os.environ.pop(PARENT, "")
    die_with_parent(int(parent) if parent.isdigit() else 0)
    return work(Path(argv[0]))


def work(path: Path) -> int:
    """Run the node of one spec. Takes over stdout: what anything prints from here on goes to stderr."""
    events = NdjsonEvents(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    if any(name.startswith(PREFIX) for name in os.environ):
        sys.stdout = sys.stderr = MaskedLog(
            os.fdopen(os.dup(2), "wb", 0), "utf-8", "backslashreplace", write_through=True
        )
    else:
        sys.stdout = sys.stderr
    try:
        spec = NodeSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"error: {path} is not a worker/1 spec: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _stop)
    started = time.perf_counter()
    guard = MemoryGuard(
        spec.memory_bytes,
        lambda used, limit: _out_of_memory(path, spec, events, used, limit),
        whole_group=spec.engine != "local" or any(step.cls for step in spec.steps),
    )
    guard.start()
    events.emit("started", node=spec.node, attempt=spec.attempt, pid=os.getpid())
    status = 0
    try:
        result = engine(spec.engine).run(_limited(spec), events)
    except BaseException as error:  # a user's operator may raise anything at all
        result, status = failure(spec, error), 143 if isinstance(error, Interrupted) else 1
    guard.stopped.set()
    result = result.model_copy(update={"seconds": time.perf_counter() - started, "peak_bytes": guard.peak})
    _leave(path, result)
    events.emit(result.status, error=result.error, seconds=round(result.seconds, 3))
    return status


def _limited(spec: NodeSpec) -> NodeSpec:
    if spec.memory_bytes and spec.engine == "local":
        limit_address_space(spec.memory_bytes)
    return spec


def _leave(path: Path, result: NodeResult) -> None:
    """result.json: temp + fsync + rename, so that it is there whole or not at all."""
    target = path.with_name(RESULT)
    aside = target.with_suffix(".tmp")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(mask(result.model_dump_json()))
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(target)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM: unwind, so that staging places are given up; end anyway if native code does not return."""
    late = threading.Timer(STOP_WITHIN_S, os._exit, (143,))
    late.daemon = True
    late.start()
    raise Interrupted("stopped by SIGTERM")


def _out_of_memory(path: Path, spec: NodeSpec, events: NdjsonEvents, used: int, limit: int) -> None:
    """End the process at once, from the guard's thread: to unwind would need the memory that is not there."""
    told = f"its limit is {said_bytes(limit)}" if spec.memory_bytes else f"the machine has {said_bytes(limit)}"
    error = f"node '{spec.node}' ran out of memory: it uses {said_bytes(used)} and {told}"
    hint = (
        'give the node more with memory="...", or let it hold less at once (sort, join and dedup keep rows in memory)'
    )
    _leave(path, NodeResult(status="failed", error=error, hint=hint, code="RUN003", peak_bytes=used))
    events.emit("failed", error=error)
    os._exit(1)


def failure(spec: NodeSpec, error: BaseException) -> NodeResult:
    """What went wrong, as a person would say it. Tracebacks of what was not expected go to the log."""
    if isinstance(error, ProblemsFound):
        problems = tuple(p.as_dict() for p in error.problems)
        return NodeResult(status="failed", error=error.message, hint=error.hint, problems=problems)
    if isinstance(error, PenstockError):
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return NodeResult(status="failed", error=error.message, hint=error.hint, code=error.code)
    traceback.print_exception(error)
    theirs = next((s for s in spec.steps if s.cls), None)
    where = _users_line(error)
    if isinstance(error, SystemExit):
        whose = f"the code of step '{theirs.name}' ({theirs.cls})" if theirs else f"node '{spec.node}'"
        said = f"{whose} called sys.exit({error.code!r}){where}"
        return NodeResult(
            status="failed", error=said, hint="raise an exception to fail, or return to succeed", code="RUN002"
        )
    if isinstance(error, MemoryError):
        hint = 'give the node more with memory="...", or let it hold less at once'
        return NodeResult(
            status="failed", error=f"node '{spec.node}' ran out of memory{where}", hint=hint, code="RUN003"
        )
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if where:
        whose = f"the code of step '{theirs.name}' ({theirs.cls})" if theirs else f"node '{spec.node}'"
        return NodeResult(
            status="failed",
            error=f"{whose} raised {what}{where}",
            hint="the node's log has the whole traceback",
            code="RUN002",
        )
    return NodeResult(
        status="failed",
        error=f"node '{spec.node}' failed in a way Penstock did not foresee: {what}",
        hint="this is a fault of Penstock: please report it with the traceback in the node's log",
        code="RUN016",
    )


def _users_line(error: BaseException) -> str:
    """` at FILE:LINE` of the innermost frame that is neither ours, nor the library's, nor an installed package's."""
    ours = str(Path(__file__).resolve().parents[1])
    installed = (ours, sys.prefix + "/lib", sys.base_prefix + "/lib", "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(installed)]
    return f" at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Libraries' threads and atexit handlers have nothing left to do for us; the result is on disk.
    os._exit(ended)
