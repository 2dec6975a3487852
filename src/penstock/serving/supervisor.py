"""Keeps a host process alive: starts it, hands signals on, starts it again after a crash, and counts who crashed it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from penstock.data.atomic import write_text
from penstock.serving.config import Config
from penstock.serving.logs import log
from penstock.serving.state_files import CRASHES, MARKERS, STATUS

#: The markers' file (crates/penstock-serve/src/fleet/markers.rs): 128 bytes a worker, a digest of 64, then a state.
SLOT, STATE = 128, 64
RUNNING, CRASHED = 1, 2
CRASHES_OF_ITS_OWN = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
#: Waits between restarts, and how long a host must have lived for them to begin anew.
FIRST_WAIT_S, LONGEST_WAIT_S, STEADY_S = 0.1, 5.0, 60.0
#: Beyond drain and finish, before a host that does not end is killed.
GRACE_S = 2.0


class Supervisor:
    """Runs the host of one configuration until it is told to stop."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = config.state_dir
        self.child: subprocess.Popen[bytes] | None = None
        self.stopping = 0.0

    def run(self) -> int:
        """Exit status: the host's own, when it ended by itself or was told to."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        addresses: list[str] = []
        wait_s, mark = FIRST_WAIT_S, time.monotonic()
        (self.state / STATUS).unlink(missing_ok=True)
        while True:
            began = time.monotonic()
            status = self._once(addresses)
            if self.stopping or status >= 0:
                return max(0, status)
            log("error", "host_crashed", signal=_name(-status), lived_s=round(time.monotonic() - began, 3))
            # Who was killed from outside did not crash: an operator, or the kernel for want of memory.
            if -status in CRASHES_OF_ITS_OWN:
                self._count()
            addresses = self._addresses() or addresses
            wait_s = FIRST_WAIT_S if time.monotonic() - mark > STEADY_S else min(LONGEST_WAIT_S, wait_s * 2)
            mark = time.monotonic()
            time.sleep(wait_s)

    def _once(self, addresses: list[str]) -> int:
        """One life of the host. Only the first prints the serving line: later ones answer at the same addresses."""
        command = [sys.executable, "-m", "penstock.serving.host", str(self.config.path), *addresses]
        out = subprocess.DEVNULL if addresses else None
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)
        while True:
            try:
                return self.child.wait(0.5 if self.stopping else None)
            except subprocess.TimeoutExpired:
                given = self.config.document.host
                if time.monotonic() - self.stopping > given.drain_s + given.finish_s + GRACE_S:
                    log("error", "host_killed", why="it did not end in time")
                    self.child.kill()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping = self.stopping or time.monotonic()
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)
        else:
            # Between two lives: there is nothing to drain.
            os._exit(0)

    def _addresses(self) -> list[str]:
        try:
            status = json.loads((self.state / STATUS).read_text(encoding="utf-8"))
            return [str(status["http"]), str(status["grpc"])]
        except (OSError, ValueError, KeyError):
            return []

    def _count(self) -> None:
        """One more crash for whoever was running, by the markers that the dead host left."""
        suspects = suspects_of(self.state / MARKERS)
        path = self.state / CRASHES
        try:
            counted = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            counted = {}
        for digest in suspects:
            counted[digest] = counted.get(digest, 0) + 1
            log("error", "crashed_in", bundle=digest, times=counted[digest])
        if suspects:
            write_text(path, json.dumps(counted, indent=1) + "\n")


def suspects_of(path: Path) -> list[str]:
    """The bundles whose run the process died in; where no run says so of itself, all that were under way."""
    try:
        held = path.read_bytes()
    except OSError:
        return []
    states: dict[int, set[str]] = {}
    for at in range(0, len(held) - SLOT + 1, SLOT):
        digest = held[at : at + STATE].rstrip(b"\0").decode("ascii", "replace")
        if digest:
            states.setdefault(held[at + STATE], set()).add(digest)
    return sorted(states.get(CRASHED) or states.get(RUNNING) or ())


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
