"""The limited process: `python -I -m penstock.registry.converting.child REQUEST OUTCOME`.

It bounds itself first (memory, time, files, network) and only then looks at the model. What it leaves is a bundle and
an outcome; the process that started it pushes the one and tells the other.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.registry.converting.request import Outcome, Request

_CLONE_NEWUSER, _CLONE_NEWNET, _NO_NEW_PRIVS = 0x10000000, 0x40000000, 38


def main(request_file: str, outcome_file: str) -> None:
    request = Request.from_json(Path(request_file).read_text(encoding="utf-8"))
    network = limit(request)
    try:
        from penstock.registry.converting.making import make

        proof: dict[str, Any] = {**make(request), "network": network}
        Outcome(proof).save(Path(outcome_file))
    except PenstockError as error:
        Outcome(error=(error.code, error.message, error.hint)).save(Path(outcome_file))
    except MemoryError:
        said = f"the model needs more than the {request.memory_bytes >> 30} GiB that conversion may take"
        Outcome(error=("REG015", said, "convert it to ONNX by hand")).save(Path(outcome_file))


def limit(request: Request) -> str:
    """Bound this process; "off" where it has no network any more, else "reachable"."""
    for kind, most in (
        (resource.RLIMIT_AS, request.memory_bytes),
        (resource.RLIMIT_CPU, request.cpu_s),
        (resource.RLIMIT_FSIZE, 8 << 30),
        (resource.RLIMIT_NOFILE, 512),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET):
        if libc.unshare(flags) == 0:
            return "off"
    return "reachable"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    sys.stdout.flush()
    os._exit(0)  # libraries' threads and destructors have nothing left to say
