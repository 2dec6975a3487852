"""The last steps before a command's program, in the process that becomes it.

`python -I -S program.py PARENT TELL ARG...`: started for every command, so it imports little.
The kernel is asked to end the program when the worker PARENT ends, which only the process itself can ask. It is an
interpreter of its own because the worker has threads and libraries with fork handlers (fsspec's hang with a client in
use), so none of its Python may run in a child that was merely forked. What cannot start is told on the descriptor
TELL, as an errno; nothing is told of what did, and the descriptor closes.
"""

import ctypes
import os
import sys

#: Linux's numbers: to import `signal` takes as long as half of this.
PR_SET_PDEATHSIG, SIGKILL, SIGPIPE, SIGXFSZ, SIG_DFL = 1, 9, 13, 25, 0


def become(parent: int, tell: int, arguments: list[str]) -> None:
    os.set_inheritable(tell, False)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + SIGKILL)
    for number in (SIGPIPE, SIGXFSZ):  # an interpreter ignores these, and a program would inherit that
        libc.signal(number, SIG_DFL)
    # As it was given: an interpreter may add LC_CTYPE to its own.
    with open("/proc/self/environ", "rb") as given:  # noqa: PTH123  pathlib takes longer to import than all the rest
        environment = dict(entry.split(b"=", 1) for entry in given.read().split(b"\0") if b"=" in entry)
    try:
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606  a shell would read what nobody wrote for one
    except OSError as error:
        os.write(tell, str(error.errno).encode())
        os._exit(127)


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
