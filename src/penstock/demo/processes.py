"""Programs that the demo starts: each a process with a log of its own, and none left behind, whatever happens.

They are in process groups of their own: Ctrl-C reaches the demo, which stops them in turn. Where the demo itself is
killed, the kernel tells them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from penstock.errors import Interrupted, PenstockError

#: How long a program may take to be ready, and to end, before it is taken to hang. A busy machine takes a while.
START_S, STOP_S = 300.0, 120.0
_PROGRAM = (
    "import sys; from signal import SIGTERM; from penstock.engines.guard import die_with_parent; "
    "die_with_parent(int(sys.argv.pop(1)), SIGTERM); from penstock.cli.__main__ import run; run()"
)


@dataclass(frozen=True)
class Program:
    """`penstock` with some arguments. `log`: what it says on stderr; `out`: on stdout."""

    arguments: Sequence[str]
    log: Path
    out: Path
    process: subprocess.Popen[bytes]

    def __str__(self) -> str:
        return f"`penstock {' '.join(self.arguments)}`"

    def failed(self, said: str) -> PenstockError:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        return PenstockError(f"{self} {said}{last}", f"its log is {self.log}")


class Programs:
    """Started in order, stopped in the opposite one when the context ends. Logs lie in `folder`, and stay there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Program] = []

    def start(self, name: str, *arguments: str) -> Program:
        """Start `penstock ARGUMENTS`; NAME.log is what it says."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log, out = self.folder / f"{name}.log", self.folder / f"{name}.out"
        command = [sys.executable, "-c", _PROGRAM, str(os.getpid()), *arguments]
        with log.open("wb") as errors, out.open("wb") as given:
            process = subprocess.Popen(command, stdout=given, stderr=errors, stdin=subprocess.DEVNULL, process_group=0)
        program = Program(arguments, log, out, process)
        self._running.append(program)
        return program

    def said(self, program: Program, pattern: str) -> re.Match[str]:
        """Wait for a line of its log or output. Raises `PenstockError` where it ends first, or says nothing in time."""
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            over = program.process.poll() is not None
            for path in (program.out, program.log):
                if found := re.search(pattern, path.read_text(errors="replace")):
                    return found
            if over:
                break
            time.sleep(0.02)
        self.check()
        raise program.failed(f"was not ready within {START_S:.0f} s")

    def check(self) -> None:
        """Raises `PenstockError` where one of them has ended."""
        for program in self._running:
            if (status := program.process.poll()) is not None:
                raise program.failed(f"ended with {status}")

    def stop(self, program: Program) -> str:
        """Ask it to end, and return what it gave on stdout. Raises `PenstockError` where it does not end well."""
        self._running.remove(program)
        status = _ended(program)
        if status:
            raise program.failed(f"ended with {status}")
        return program.out.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _undisturbed():
            gone = next((p for p in self._running if p.process.poll() is not None), None)
            statuses = {program: _ended(program) for program in reversed(self._running)}
        if error is None:
            for program, status in statuses.items():
                if status:
                    raise program.failed(f"ended with {status}")
        elif (
            isinstance(error, PenstockError)
            and not isinstance(error, Interrupted)
            and str(self.folder) not in error.hint
        ):
            if gone is not None:  # what was met is only that it is not there
                raise gone.failed(f"ended with {gone.process.returncode}") from error
            raise PenstockError(error.message, f"{error.hint + '; ' if error.hint else ''}logs: {self.folder}/*.log",
                                error.code) from error  # fmt: skip


def _ended(program: Program) -> int:
    """Its exit status, after asking and then making it end."""
    process = program.process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave processes behind."""
    with _handled(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what is under way as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted("the demo was told to end", "run it again: what was done is reused")

    with _handled(interrupt, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: object, *numbers: signal.Signals) -> Iterator[None]:
    before = {}
    with suppress(ValueError):  # signals are the main thread's
        for number in numbers:
            before[number] = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """Registry, cache and state of the demo lie in its own folder."""
    own = {
        "PENSTOCK_REGISTRY": folder / "registry",
        "PENSTOCK_MODEL_CACHE": folder / "models",
        "XDG_STATE_HOME": folder / "state",
    }
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in own}
    os.environ.update({name: str(path.absolute()) for name, path in own.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
