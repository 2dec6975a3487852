"""Limits a worker lives under: it dies with its runner, and it stops itself before its memory runs out.

The kernel's own killer gives no reason, so a thread watches the anonymous memory of the worker and of the programs
it started and ends the node with a sentence while there is still room to write one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

#: The share of the limit at which the node is stopped.
STOP_AT = 0.9
#: How often the guard looks. Memory is filled at a few GB/s at most, so this leaves 100 to 200 MB of blindness.
LOOK_EVERY_S = 0.05
#: ... and where it must look at every process of the machine to find the group's.
LOOK_AT_GROUP_EVERY_S = 0.2
#: Address space beyond the limit: allocators reserve arenas they never touch (Arrow's holds 1 GiB from the start).
SLACK_BYTES = 1 << 30

_PR_SET_PDEATHSIG = 1
_PAGE = resource.getpagesize()


def die_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to end this process when `parent` does; ends it now if that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(128 + by)


def anonymous_bytes(pid: int | str = "self") -> int:
    """Memory that only this process can hold: resident pages that are no file's. 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


def group_members(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
        except OSError:
            continue
        # pid (comm) state ppid pgrp ...; comm may hold spaces and brackets.
        state, _, member_of = stat.rsplit(")", 1)[1].split()[:3]
        if int(member_of) == group and state not in "ZX":
            found.append(int(entry.name))
    return found


def group_bytes(group: int) -> int:
    """`anonymous_bytes` summed over a process group."""
    return sum(anonymous_bytes(pid) for pid in group_members(group))


def machine_bytes() -> int:
    """What this process may use at most: the machine's memory, or less where a cgroup says so."""
    limit = os.sysconf("SC_PHYS_PAGES") * _PAGE
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            said = Path(file).read_text().strip()
        except OSError:
            continue
        if said.isdigit():
            limit = min(limit, int(said))
    return limit


def available_bytes() -> int:
    """What the machine could still give without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return machine_bytes()


def limit_address_space(memory_bytes: int) -> None:
    """The backstop for one huge allocation inside a C call, where the guard's thread gets no turn."""
    used = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            used = int(line.split()[1]) * 1024
    limit = used + memory_bytes + SLACK_BYTES
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


class MemoryGuard(threading.Thread):
    """Calls `exceeded(used, limit)` once, from its own thread, when memory passes nine tenths of the limit.

    Without a limit it guards the machine: it acts when this worker holds most of what there is and little is left.
    """

    def __init__(self, memory_bytes: int, exceeded: Callable[[int, int], None], whole_group: bool) -> None:
        super().__init__(name="memory-guard", daemon=True)
        self.limit = memory_bytes or machine_bytes()
        self.declared = bool(memory_bytes)
        self.exceeded = exceeded
        self.whole_group = whole_group
        self.peak = 0
        # A program's limit is its own: what this interpreter weighs, which waits for it, does not count.
        self.base = anonymous_bytes() if whole_group else 0
        self.stopped = threading.Event()

    def used(self) -> int:
        return max(0, group_bytes(os.getpgrp()) - self.base) if self.whole_group else anonymous_bytes()

    def run(self) -> None:
        every = LOOK_AT_GROUP_EVERY_S if self.whole_group else LOOK_EVERY_S
        while not self.stopped.wait(every):
            used = self.used()
            self.peak = max(self.peak, used)
            full = used >= self.limit * STOP_AT
            if not full and not self.declared and used > self.limit // 4:
                full = available_bytes() < self.limit * (1 - STOP_AT) / 2
            if full:
                self.exceeded(used, self.limit)
                return


def said_bytes(size: int) -> str:
    """1.5 GB, 300 MB: what a person reads."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
