"""`penstock serve` as a process: started on free ports, stopped by its pid, its log shown when it fails."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120
SERVING = re.compile(r"serving http=(\S+) grpc=(\S+)")


@dataclass(frozen=True)
class Host:
    """A running one. `token`: what its callers need, "" for nothing."""

    http: str
    grpc: str
    token: str
    pid: int
    log: Path


@contextmanager
def running(
    folder: Path, settings: str, token: str = "", environment: Mapping[str, str] | None = None,
    within: Sequence[str | Path] = (),
) -> Iterator[Host]:  # fmt: skip
    """Start a host with this configuration in `folder`; it ends with the block, and must end well.

    `environment`: instead of this process's own. `within`: a command that runs what follows it.
    """
    config, log = folder / "serving.toml", folder / "log"
    config.write_text(settings, encoding="utf-8")
    command = [*within, sys.executable, "-m", "penstock.cli", "serve", config]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment
        )
    assert server.stdout
    late = threading.Timer(START_SECONDS, server.kill)
    late.start()
    try:
        line = server.stdout.readline()
        late.cancel()
        found = SERVING.fullmatch(line.strip())
        assert found, f"penstock serve said {line!r}; its log:\n{log.read_text(errors='replace')[-4000:]}"
        yield Host(found[1], found[2], token, server.pid, log)
    finally:
        late.cancel()
        server.terminate()
        try:
            code = server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
        server.stdout.close()
    assert code == 0, f"penstock serve ended with {code}; its log:\n{log.read_text(errors='replace')[-4000:]}"
