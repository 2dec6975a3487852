"""Prefect: N no-op tasks of one flow in this process, without a remote server."""

import logging
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="prefect-"))
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "240")  # a busy machine is no failure
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

logging.disable(logging.WARNING)


def setup(question):  # type: ignore[no-untyped-def]
    import prefect

    answer("in_process", 2)  # its ephemeral server starts with the first flow
    return prefect.__version__


def answer(case, nodes):  # type: ignore[no-untyped-def]
    from prefect import flow, task

    @task
    def same(x):  # type: ignore[no-untyped-def]
        return x

    @flow
    def chain():  # type: ignore[no-untyped-def]
        value = [1, 2, 3]
        started = time.perf_counter()
        for _ in range(nodes):
            value = same(value)
        return nodes / (time.perf_counter() - started)

    return {"rate": chain()}


if __name__ == "__main__":
    harness.serve(setup, answer)
