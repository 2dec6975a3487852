"""Run a program as its container would: another user without capabilities, and nothing to write to but its volumes.

`python read_only.py VOLUME... -- PROGRAM ARGUMENT...`. Exits 77 where the system lets nobody (no user namespaces).
"""

from __future__ import annotations

import ctypes
import os
import sys

USER = 10001
NEWNS, NEWUSER = 0x20000, 0x10000000
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
#: mount_setattr(2), the same number on every architecture; AT_RECURSIVE, MOUNT_ATTR_RDONLY.
SETATTR, AT_RECURSIVE, READ_ONLY = 442, 0x8000, 1
NOT_HERE = 77

libc = ctypes.CDLL(None, use_errno=True)


def must(result: int) -> None:
    if result != 0:
        sys.stderr.write(f"no namespaces of one's own here: {os.strerror(ctypes.get_errno())}\n")
        sys.exit(NOT_HERE)


def set_read_only(path: str, on: bool, flags: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY if on else 0, 0 if on else READ_ONLY, 0, 0)
    must(libc.syscall(SETATTR, -1, path.encode(), flags, attributes, ctypes.sizeof(attributes)))


def main(volumes: list[str], program: list[str]) -> None:
    user, group = os.getuid(), os.getgid()
    must(libc.unshare(NEWUSER | NEWNS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{USER} {user} 1"), ("gid_map", f"{USER} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    must(libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None))
    for volume in volumes:
        must(libc.mount(volume.encode(), volume.encode(), None, BIND, None))
    set_read_only("/", True, AT_RECURSIVE)
    for volume in volumes:
        set_read_only(volume, False, 0)
    os.execvp(program[0], program)


if __name__ == "__main__":
    at = sys.argv.index("--")
    main(sys.argv[1:at], sys.argv[at + 1 :])
