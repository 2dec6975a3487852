"""Environments of other people's clients and servers: one each, since they cannot share one. `make test` makes them.

`python environments.py triton kserve` builds or refreshes those that are named.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / ".clients"


class NotInstalled(Exception):
    """Why an environment cannot be had."""


def python_of(name: str) -> Path:
    """The interpreter of environment `name`, built from requirements/NAME.txt when that file has changed.

    Raises `NotInstalled`.
    """
    wanted = HERE / "requirements" / f"{name}.txt"
    fingerprint = hashlib.sha256(wanted.read_bytes()).hexdigest()
    folder = ROOT / name
    stamp = folder / ".requirements"
    ROOT.mkdir(exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as lock:  # workers of one test run meet here
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == fingerprint):
            # The constraints of our own environment are not theirs.
            environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
            pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
            for command in ([sys.executable, "-m", "venv", "--clear", folder], pip):
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise NotInstalled(f"{wanted.read_text().strip()}: {done.stderr.strip()[-400:]}")
            stamp.write_text(fingerprint)
    return folder / "bin" / "python"


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(python_of(each))
