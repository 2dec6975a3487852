"""Workers without the wait: a process that has imported its engine's libraries and forks once a node.

`PYTHON -m penstock.engines.forkserver ENGINE` reads requests on stdin (`{"id","spec","events","log"}`, one a line) and
answers on stdout: `{"ready": true}`, then `{"id","pid"}` and `{"id","status"}`. It speaks of nothing but starting and
ending; spec, events, log and result are those of `worker`.

To fork a process whose threads hold locks can hang the child, so the server starts none itself and refuses to serve
(`{"ready": false}`) when a library did. Two kinds are known to be safe: jemalloc's background threads, which its own
fork handlers stop and start again, and Polars' cleaner of spill files, which sleeps until there is a spill.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import select
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from penstock.engines.base import engine
from penstock.engines.guard import die_with_parent
from penstock.engines.worker import PARENT, work
from penstock.operators.catalog import installed

#: Set by who starts us, with OPENBLAS_NUM_THREADS=1: numpy's OpenBLAS starts its threads the moment it is imported,
#: which is before any line of ours. The children's programs do not inherit the setting.
ONE_BLAS = "PENSTOCK_ONE_BLAS"
SAFE_THREADS = frozenset({"jemalloc_bg_thd", "polars-ooc-clea"})
#: What the local engine's nodes import anyway, beside the modules of `data` and `operators`.
PRELOAD = {"local": ("polars", "penstock.engines.local_node")}


def main(argv: list[str]) -> int:
    parent = os.environ.pop(PARENT, "")
    die_with_parent(int(parent) if parent.isdigit() else 0)
    # The terminal's ctrl-C is for the runner, which then stops each worker by its own group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _preload(argv[0])
    if os.environ.pop(ONE_BLAS, ""):
        del os.environ["OPENBLAS_NUM_THREADS"]
    others = foreign_threads()
    _answer({"ready": not others, "threads": others})
    if others:
        return 0
    gc.collect()
    gc.freeze()  # the children's collections need not touch, and so copy, these pages
    return _serve()


def foreign_threads() -> list[str]:
    """Names of this process's threads that are neither the main one nor known to survive a fork."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        if task.name != str(os.getpid()) and name not in SAFE_THREADS:
            names.append(name)
    return sorted(names)


def _preload(name: str) -> None:
    engine(name)
    if name not in PRELOAD:
        return
    import penstock.data
    import penstock.operators

    ours = [
        found.name
        for package in (penstock.data, penstock.operators)
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    ]
    _import(PRELOAD[name])
    with _without_pandas():
        _import(ours)
    installed()  # reads the metadata of every installed distribution, once for all children


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        try:
            import_module(module)
        except ImportError:
            continue  # the worker's own import will say what is missing


class _NoPandas:
    """A finder that says there is no pandas.

    Arrow imports pandas, where it is installed, the first time a table is made: half a second and a few threads for
    every child. Told once that there is none it asks again only when something needs it (`to_pandas`).
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError("not while the forkserver preloads")


@contextmanager
def _without_pandas() -> Iterator[None]:
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.dataset
        import pyarrow.parquet

        pa.schema([]).empty_table()
        yield
    finally:
        sys.meta_path.remove(finder)


def _serve() -> int:
    """One thread, two things to wait for: a request, or a child's end."""
    children: dict[int, str] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    requests = b""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            with suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(children)
        if 0 in ready:
            read = os.read(0, 65536)
            if not read:
                return 0  # the runner closed us; the children follow by their death signal
            requests += read
            *lines, requests = requests.split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _child(request, (wake_read, wake_write), os.getppid())
                children[pid] = request["id"]
                _answer({"id": request["id"], "pid": pid})


def _reap(children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _answer({"id": children.pop(pid), "status": os.waitstatus_to_exitcode(status)})


def _child(request: dict[str, str], pipes: tuple[int, int], server: int) -> NoReturn:
    """From here on a worker like any other; it never returns into the server's loop."""
    status = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(server)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in pipes:
            os.close(fd)
        for fd, path in ((0, os.devnull), (1, request["events"]), (2, request["log"])):
            flags = os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, fd)
            os.close(opened)
        status = work(Path(request["spec"]))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # beyond what `work` tells as a failure: our own fault, and the log must show it
        traceback.print_exc()
    finally:
        os._exit(status)


def _answer(message: dict[str, object]) -> None:
    # One write of less than PIPE_BUF: the reader never sees half a line of two.
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
