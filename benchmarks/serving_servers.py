"""Servers as processes: started on one core, asked, loaded from the other, counted, stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving_wire import Wire

START_SECONDS = 120
#: For one answer: servers of many processes on one core are slow at first.
PATIENCE_S = 30
CORES = sorted(os.sched_getaffinity(0))
#: The servers have one core, the load the other.
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A running one. `command` gets the port where it says `{port}`; `address` finds it when the server chooses itself.

    `start_s`: from its start to its first answer to `probe`.
    """

    def __init__(
        self,
        name: str,
        wire: Wire,
        command: Sequence[str],
        probe: bytes,
        log: Path,
        env: Mapping[str, str] | None = None,
        address: Callable[[subprocess.Popen[str]], int] | None = None,
    ) -> None:
        self.name, self.wire = name, wire
        self.port = 0 if address else free_port()
        began = time.monotonic()
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [text.replace("{port}", str(self.port)) for text in command],
            stdout=subprocess.PIPE if address else subprocess.DEVNULL,
            stderr=log.open("wb"),
            text=True,
            env={**os.environ, **single, **(env or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        try:
            self.port = address(self.process) if address else self.port
            self._wait(probe, began + START_SECONDS)
        except BaseException:
            self.close()
            raise SystemExit(
                f"error: {name} did not start; its log:\n{log.read_text(errors='replace')[-3000:]}"
            ) from None
        self.start_s = time.monotonic() - began

    def _wait(self, probe: bytes, until: float) -> None:
        while True:
            try:
                status, _, _ = self.ask(probe)
                if status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                raise TimeoutError
            time.sleep(0.02)

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request over a connection of its own: status, headers in lower case, body."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            connection.sendall(request)
            reply = http.client.HTTPResponse(connection)
            reply.begin()
            return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()

    def scores(self, form: str, tensors: Mapping[str, Any]) -> Any:
        try:
            status, headers, body = self.ask(self.wire.request(form, tensors))
        except OSError as error:
            raise SystemExit(f"error: {self.name} gives no {form} answer: {error}") from None
        assert status == 200, f"{self.name} {form}: {status} {body[:500]!r}"
        return self.wire.scores(form, headers, body)

    @property
    def cpu_s(self) -> float:
        """Processor time of the process and everything below it, those that ended included."""
        return sum(_times(pid) for pid in _tree(self.process.pid)) / TICKS

    @property
    def rss_mb(self) -> float:
        """Resident memory of the tree; what its processes share counts once (PSS)."""
        total = 0
        for pid in _tree(self.process.pid):
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def close(self) -> None:
        """End it: asked first, then by force, with its children."""
        pids = _tree(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in pids[1:]:
            if Path(f"/proc/{pid}").exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.process.stdout:
            self.process.stdout.close()


class Load:
    """The generator of `load/`, on its own core."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder

    def write(self, name: str, requests: Sequence[bytes]) -> Path:
        path = self.folder / f"{name}.requests"
        path.write_bytes(b"".join(len(each).to_bytes(4, "little") + each for each in requests))
        return path

    def run(self, server: Server, requests: Path, seconds: float, **options: float) -> dict[str, Any]:
        """What the generator reports, and `cpu_s` of the server meanwhile. Any reply but a 200 ends the benchmark."""
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [self.program, f"127.0.0.1:{server.port}", requests, "--seconds", str(seconds), *given]
        before = server.cpu_s
        done = subprocess.run(
            command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE})
        )
        spent = server.cpu_s - before
        if done.returncode:
            raise SystemExit(f"{server.name}: {done.stderr}")
        report: dict[str, Any] = json.loads(done.stdout)
        if report["errors"]:
            raise SystemExit(f"error: {server.name} failed {report['errors']} requests; the first: {report['fault']}")
        return {**report, "cpu_s": spent}


def free_port() -> int:
    """A port p such that p, p + 1 and p + 2 are free: some servers take three."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except OSError:
                continue
            return port


def _tree(root: int) -> list[int]:
    """The process and its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found.extend(parents.get(pid, []))
    return found


def _times(pid: int) -> int:
    """Ticks of a process and of its children that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(ticks) for ticks in fields[11:15])
