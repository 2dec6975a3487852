"""Starting nodes: the `Launcher` protocol, and the one that runs them as processes of this machine.

A scheduler will replace `LocalLauncher` by one of its own; the runner knows only the protocol.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.engines.forkserver import ONE_BLAS
from penstock.engines.guard import group_bytes, group_members
from penstock.engines.worker import PARENT
from penstock.errors import PenstockError

EVENTS = "events.ndjson"
SPEC = "spec.json"
LOG = "log.txt"
#: A node asked to stop has this long to leave by itself.
GRACE_S = 5.0
#: Beyond the limit: the guard's own margin, and what the worker itself weighs.
SLACK_BYTES = 200 << 20
#: How often the launcher looks at the memory of nodes that have a limit: the worker's own guard comes first.
WEIGH_EVERY_S = 0.5


@dataclass(frozen=True)
class Job:
    """One attempt of one node. `folder` holds spec.json already; events, log and result come there."""

    key: str
    engine: str
    python: str
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)  # beyond the runner's own
    fresh: bool = False
    memory_bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """A job's process is gone. `status`: its exit status, or minus the signal; `over_memory`: we ended it for that."""

    key: str
    status: int
    over_memory: int = 0


class Launcher(Protocol):
    """Starts workers and says when they have ended; it never looks into specs or results."""

    def prepare(self, engine: str, python: str) -> None:
        """A hint that jobs of this engine will come; may warm something up."""

    def start(self, job: Job) -> int:
        """Start it and return the id of its process. Raises `PenstockError` when it cannot."""

    def poll(self, timeout_s: float, wake: Sequence[int] = ()) -> list[Ended]:
        """Wait until a job has ended, one of the descriptors `wake` is readable, or the time is over."""

    def cancel(self, key: str, force: bool = False) -> None:
        """Ask it to stop (SIGTERM), or make it (SIGKILL); `poll` tells when it has."""

    def logs(self, key: str) -> Path:
        """The file its log grows in."""

    def close(self) -> None:
        """End whatever still runs."""


@dataclass
class _Running:
    job: Job
    pid: int
    process: subprocess.Popen[bytes] | None = None
    server: _Forkserver | None = None
    pidfd: int = -1
    over_memory: int = 0


class _Forkserver:
    """Our end of one `penstock.engines.forkserver`."""

    def __init__(self, engine: str, python: str, log: Path) -> None:
        environment = {**os.environ, PARENT: str(os.getpid())}
        if "OPENBLAS_NUM_THREADS" not in environment:
            environment |= {"OPENBLAS_NUM_THREADS": "1", ONE_BLAS: "1"}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [python, "-m", "penstock.engines.forkserver", engine],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                process_group=0,
                bufsize=0,
            )
        assert self.process.stdout is not None
        self.fd = self.process.stdout.fileno()
        self.buffer = b""
        self.serves: bool | None = None  # None: it has not said yet

    def read(self) -> list[dict[str, object]]:
        """The messages that are there; [] with `serves=False` when it is gone."""
        read = os.read(self.fd, 65536)
        if not read:
            self.serves = False
            return []
        *lines, self.buffer = (self.buffer + read).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, request: Mapping[str, object]) -> bool:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            self.serves = False
            return False
        return True

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.kill()
        self.process.wait()


class LocalLauncher:
    """Each job is a process group of its own; it dies with us. Jobs without `fresh` are forked from a warm server."""

    def __init__(self, folder: Path, forkserver: bool = True) -> None:
        self._folder = folder
        self._use_servers = forkserver and hasattr(os, "fork") and sys.platform == "linux"
        self._servers: dict[tuple[str, str], _Forkserver] = {}
        self._running: dict[str, _Running] = {}
        self._ended: list[Ended] = []
        self._weighed = 0.0

    def prepare(self, engine: str, python: str) -> None:
        if self._use_servers and (engine, python) not in self._servers:
            try:
                self._servers[engine, python] = _Forkserver(engine, python, self._folder / "forkserver.log")
            except OSError:
                self._use_servers = False

    def start(self, job: Job) -> int:
        server = None if job.fresh or job.env else self._server(job)
        if server is not None and (pid := self._fork(server, job)):
            return pid
        return self._spawn(job)

    def poll(self, timeout_s: float, wake: Sequence[int] = ()) -> list[Ended]:
        self._weigh()
        servers = {s.fd: s for s in self._servers.values() if s.serves is not False}
        spawned = {r.pidfd: r for r in self._running.values() if r.process is not None}
        if not self._ended:
            if any(r.job.memory_bytes for r in self._running.values()):
                timeout_s = min(timeout_s, WEIGH_EVERY_S)
            poller = select.poll()
            for fd in (*servers, *spawned, *wake):
                poller.register(fd, select.POLLIN)
            for fd, _ in poller.poll(max(0.0, timeout_s) * 1000):
                if fd in servers:
                    self._hear(servers[fd])
                elif fd in spawned:
                    running = spawned[fd]
                    assert running.process is not None
                    self._end(running.job.key, running.process.wait())
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, key: str, force: bool = False) -> None:
        running = self._running.get(key)
        if running is not None:
            _signal_group(running.pid, signal.SIGKILL if force else signal.SIGTERM)

    def logs(self, key: str) -> Path:
        return self._running[key].job.folder / LOG

    def close(self) -> None:
        for key in list(self._running):
            self.cancel(key, force=True)
        deadline = time.monotonic() + GRACE_S
        while self._running and time.monotonic() < deadline:
            self.poll(0.1)
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    # --- how they start ---

    def _server(self, job: Job) -> _Forkserver | None:
        """The warm server for a job, waiting for its first word if need be; None where there is none to be had."""
        # A server that has imported more than this engine needs is still better than to start another one.
        serving = (s for (_, python), s in self._servers.items() if python == job.python and s.serves)
        server = self._servers.get((job.engine, job.python)) or next(serving, None)
        if server is None:
            self.prepare(job.engine, job.python)
            server = self._servers.get((job.engine, job.python))
        if server is None:
            return None
        while server.serves is None:
            self._hear(server)
        return server if server.serves else None

    def _fork(self, server: _Forkserver, job: Job) -> int:
        request = {
            "id": job.key,
            "spec": str(job.folder / SPEC),
            "events": str(job.folder / EVENTS),
            "log": str(job.folder / LOG),
        }
        if not server.send(request):
            return 0
        self._running[job.key] = running = _Running(job, 0, server=server)
        while running.pid == 0:
            self._hear(server)
            if server.serves is False:
                self._running.pop(job.key, None)
                return 0
        return running.pid

    def _spawn(self, job: Job) -> int:
        environment = {**os.environ, **job.env, PARENT: str(os.getpid())}
        try:
            with (job.folder / EVENTS).open("ab") as events, (job.folder / LOG).open("ab") as log:
                process = subprocess.Popen(
                    [job.python, "-m", "penstock.engines.worker", str(job.folder / SPEC)],
                    stdin=subprocess.DEVNULL,
                    stdout=events,
                    stderr=log,
                    env=environment,
                    process_group=0,
                )
        except FileNotFoundError as error:
            raise PenstockError(
                f"there is no interpreter at {job.python}", "see the engine's <conf>", "RUN013"
            ) from error
        except OSError as error:
            raise PenstockError(f"cannot start {job.python}: {error.strerror}", code="RUN013") from error
        self._running[job.key] = _Running(job, process.pid, process, pidfd=os.pidfd_open(process.pid))
        return process.pid

    # --- how they end ---

    def _hear(self, server: _Forkserver) -> None:
        for message in server.read():
            if "ready" in message:
                server.serves = bool(message["ready"])
            elif "pid" in message:
                self._running[str(message["id"])].pid = int(str(message["pid"]))
            else:
                self._end(str(message["id"]), int(str(message["status"])))
        if server.serves is False:
            # Its children got their death signal with it.
            for key in [k for k, r in self._running.items() if r.server is server and r.pid]:
                self._end(key, -signal.SIGKILL)

    def _end(self, key: str, status: int) -> None:
        running = self._running.pop(key)
        if running.pidfd >= 0:
            os.close(running.pidfd)
        _signal_group(running.pid, signal.SIGKILL)  # what it left running goes with it
        self._ended.append(Ended(key, status, running.over_memory))

    def _weigh(self) -> None:
        """The backstop behind the worker's own guard, which a C call that never lets go can blind."""
        now = time.monotonic()
        if now - self._weighed < WEIGH_EVERY_S:
            return
        self._weighed = now
        for running in self._running.values():
            limit = running.job.memory_bytes
            if limit and (used := group_bytes(running.pid)) > limit + SLACK_BYTES:
                running.over_memory = used
                _signal_group(running.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    if group > 0:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def end_strays(run: str, groups: Sequence[tuple[int, float]], within_s: float = GRACE_S) -> None:
    """Kill what a dead runner's nodes may have left, and wait until it is gone. `groups`: (group, its start).

    A group's id may belong to somebody else by now. Ours are the leader that started when its attempt did, and
    whatever a command started, which carries the run's name in its environment.
    """
    mark = f"PENSTOCK_RUN={run}".encode()
    ours = [
        pid
        for group, started in groups
        for pid in group_members(group)
        if (pid == group and abs(_started(pid) - started) < 2.0) or mark in _environment(pid)
    ]
    for pid in ours:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in ours) and time.monotonic() < deadline:
        time.sleep(0.02)


def _started(pid: int) -> float:
    """When a process started, in Unix time; 0 when it is gone."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except OSError:
        return 0.0
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
