"""The command engine: any program as a node.

The program gets its inputs' paths in `PENSTOCK_IN_name` and writes to the paths in `PENSTOCK_OUT_name`: staging
places, which become the targets only when it ends with status 0. No shell is involved; what it prints is the log.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from penstock.data.schema import Schema
from penstock.data.targets import Target
from penstock.engines.base import Events
from penstock.engines.guard import die_with_parent, group_members
from penstock.engines.spec import NodeResult, NodeSpec, OutputResult, StepSpec
from penstock.errors import PenstockError
from penstock.operators.base import CheckContext, Fault, Input, Output
from penstock.operators.catalog import operator
from penstock.operators.secrets import mask, reveal

#: Becomes the program; see there why it is not forked from us.
PROGRAM = Path(__file__).with_name("program.py")

#: Lines of the program's stderr that an error repeats.
LAST_LINES = 10


class CommandSettings(BaseModel):
    """`<conf>` of a command node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cwd: str = Field("", description="the folder it runs in, relative to the flow file's (default: the flow file's)")
    hash_inputs: bool = Field(False, description="key the cache by its inputs' content rather than size and mtime")


class CommandEngine:
    """Runs `<arg>` children as one program; see the module."""

    name: ClassVar[str] = "command"
    settings: ClassVar[type[BaseModel]] = CommandSettings

    def check(self, spec: NodeSpec) -> tuple[Fault, ...]:
        faults = []
        if not spec.args:
            faults.append(
                Fault(
                    "RUN020",
                    f"node '{spec.node}' has engine=\"command\" but no <arg>: there is nothing to run",
                    "name the program in the first <arg>, its arguments in the next ones",
                )
            )
        for step in spec.steps:
            if step.kind == "process":
                faults.append(
                    Fault(
                        "RUN021",
                        f"step '{step.name}' is a process, but a command node has only inputs and outputs",
                        'the program does the work: move the step to a node with engine="local"',
                        line=step.line,
                    )
                )
        return tuple(faults)

    def python(self, conf: Mapping[str, str]) -> str:
        return sys.executable

    def run(self, spec: NodeSpec, events: Events) -> NodeResult:
        if spec.preview is not None:
            return _preview(spec)
        # A program that forked others must take them along when the runner dies: we get a signal, and end the group.
        die_with_parent(0, signal.SIGTERM)
        targets = {s.name: _target(s, spec) for s in spec.steps if s.kind == "output"}
        with ExitStack() as undo:
            environment = dict(os.environ)
            for step in spec.steps:
                if step.kind == "input":
                    environment[f"PENSTOCK_IN_{step.name}"] = reveal(step.attrs.get("path", ""))
            for name, target in targets.items():
                undo.callback(target.abort)
                environment[f"PENSTOCK_OUT_{name}"] = str(target.staging())
            environment |= {"PENSTOCK_RUN": spec.run, "PENSTOCK_NODE": spec.node, "PENSTOCK_ATTEMPT": str(spec.attempt)}
            _execute(spec, environment)
            columns = {}
            for step in spec.steps:
                if step.name in targets:
                    _refuse_empty(spec, step.name, targets[step.name])
                    columns[step.name] = _columns(step, spec, targets[step.name].staging())
            outputs = {}
            for name, target in targets.items():
                written = target.commit()
                outputs[name] = OutputResult(
                    path=written.path,
                    size_bytes=written.size_bytes,
                    content=written.content_hash,
                    columns=columns[name],
                )
                events.log(f"wrote {written.path} ({written.size_bytes:,} bytes)")
            undo.pop_all()
        return NodeResult(status="done", outputs=outputs)


def _execute(spec: NodeSpec, environment: Mapping[str, str]) -> None:
    """Run the program to its end. Raises with its last words when it fails."""
    arguments = [reveal(a) for a in spec.args]
    where = Path(spec.flow_dir, spec.conf.get("cwd", ""))
    if "/" in arguments[0]:
        arguments[0] = str(Path(spec.flow_dir, arguments[0]))
    program: subprocess.Popen[bytes] | None = None
    readers: list[threading.Thread] = []
    words: deque[str] = deque(maxlen=LAST_LINES)
    hear, tell = os.pipe()
    try:
        try:
            program = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM), str(os.getpid()), str(tell), *arguments],
                cwd=where,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(tell,),
            )
        finally:
            os.close(tell)
        if told := os.read(hear, 16):
            program.wait()
            raise OSError(int(told), os.strerror(int(told)))
        for stream, keep in ((program.stdout, None), (program.stderr, words)):
            readers.append(threading.Thread(target=_forward, args=(stream, keep), daemon=True))
            readers[-1].start()
        status = program.wait()
    except OSError as error:
        raise _cannot_start(spec, arguments[0], where, error) from None
    finally:
        os.close(hear)
        # A stop may come while Popen is still returning: the group ends whether or not we hold the program yet.
        if program is not None and program.poll() is None:
            program.kill()
        _end_group()
        for reader in readers:
            reader.join(1.0)
    if status:
        raise _failed(spec, arguments[0], status, list(words))


def _forward(stream: IO[bytes] | None, keep: deque[str] | None) -> None:
    assert stream is not None
    for line in stream:
        text = mask(line.decode("utf-8", "backslashreplace"))
        if keep is not None and text.strip():
            keep.append(text.rstrip())
        with suppress(OSError):  # a full disk must not stop the reading: the program would wait for us for ever
            sys.stderr.write(text)
            sys.stderr.flush()


def _end_group() -> None:
    """What the program left running in our process group ends with it. Only where the launcher gave us our own."""
    if os.getpgrp() != os.getpid():
        return
    for pid in group_members(os.getpgrp()):
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _failed(spec: NodeSpec, program: str, status: int, words: list[str]) -> PenstockError:
    name = Path(program).name
    if status < 0:
        ended = f"was ended by {signal.Signals(-status).name}"
    else:
        ended = f"ended with exit status {status}"
    last = f": {words[-1]}" if words else ""
    hint = "its last lines on stderr:" + "".join(f"\n    {line}" for line in words) if len(words) > 1 else ""
    return PenstockError(
        f"'{name}' of node '{spec.node}' {ended}{last}", hint or "the node's log has what it printed", "RUN005"
    )


def _cannot_start(spec: NodeSpec, program: str, where: Path, error: OSError) -> PenstockError:
    if not where.is_dir():
        return PenstockError(
            f"node '{spec.node}' cannot run in {where}: it is not a folder", 'see <conf key="cwd">', "RUN007"
        )
    if isinstance(error, FileNotFoundError):
        hint = (
            "a name without '/' is looked up on PATH; a path with one starts at the flow file's folder"
            if shutil.which(program) is None
            else "its first line (#!) names an interpreter that is not there"
        )
        return PenstockError(f"node '{spec.node}' cannot start '{program}': there is no such program", hint, "RUN007")
    hint = "make it executable (chmod +x)" if isinstance(error, PermissionError) else ""
    return PenstockError(f"node '{spec.node}' cannot start '{program}': {error.strerror}", hint, "RUN007")


def _operator(step: StepSpec) -> Output:
    """The output as a value, for what it says about folders and files; it reads no step here."""
    attrs = {k: reveal(v) for k, v in step.attrs.items() if k != "from"}
    return operator("output", step.type).model_validate({**attrs, "from": step.name})  # type: ignore[return-value]


def _target(step: StepSpec, spec: NodeSpec) -> Target:
    output = _operator(step)
    return Target(output.path, output.folder(), output.mode, run=spec.run, node=spec.node, output=step.name)


def _refuse_empty(spec: NodeSpec, name: str, target: Target) -> None:
    staged = target.staging()
    if staged.is_dir() != target.folder or not staged.exists() or (target.folder and not any(staged.iterdir())):
        kind = "files into the folder" if target.folder else "the file"
        raise PenstockError(
            f"the program of node '{spec.node}' ended well but did not write output '{name}'",
            f"it should write {kind} that PENSTOCK_OUT_{name} names",
            "RUN006",
        )


def _columns(step: StepSpec, spec: NodeSpec, staged: Path) -> dict[str, str]:
    """The columns of what was written, read by the twin input; a file that is not of its type fails the node."""
    twin = dict(_operator(step).twin())
    if not twin:
        return {}
    kind = twin.pop("type")
    reader: Any = operator("input", kind).model_validate({**twin, "path": str(staged)})
    assert isinstance(reader, Input)
    checked = reader.check(CheckContext(flow_dir=Path(spec.flow_dir), step=step.name))
    if checked.failed:
        fault = next(f for f in checked.faults if f.severity == "error")
        raise PenstockError(
            f"the program of node '{spec.node}' wrote output '{step.name}', but it is no {kind}: {fault.message}",
            fault.hint,
            "RUN006",
        )
    info = checked.outputs.get("")
    return {c.name: str(c.type) for c in info} if isinstance(info, Schema) else {}


def _preview(spec: NodeSpec) -> NodeResult:
    raise PenstockError(
        f"node '{spec.node}' is a command: there are no steps to look into",
        "run it, and preview an input that reads its output",
        "RUN014",
    )
