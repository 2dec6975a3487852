"""A real Triton and ours are sent the same bad requests; they differ only where the contract says so."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .faults import GOOD, Fault, faults
from .hosts import Host

JUDGES = Path(__file__).resolve().parent / "judges"
START_SECONDS = 120


def send(address: str, fault: Fault) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(fault.method, fault.path, fault.body or None, fault.headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@pytest.fixture(scope="session")
def triton(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The HTTP address of a Triton that has a model of ours' signature."""
    python = environment("pytriton")
    folder = tmp_path_factory.mktemp("triton")
    signature, log = folder / "signature.json", folder / "log"
    signature.write_text(json.dumps({"model": "judged", "columns": {name: kind for name, (kind, _) in GOOD.items()}}))
    port = free_port()
    # Its Python stub loads libpython by name, and must find that of the environment's interpreter.
    own = {**os.environ, "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    with log.open("wb") as stream:
        command = [python, JUDGES / "triton_server.py", str(port), signature]
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env=own, cwd=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while b"ready\n" not in log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Triton did not start; its log:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """The first of three that are free together."""
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


@pytest.mark.parametrize("fault", list(faults()), ids=lambda fault: fault.name)
def test_ours_answers_as_the_contract_says(serving_host: Host, fault: Fault) -> None:
    status, said = send(serving_host.http, fault)
    assert status == fault.status, said[:500]
    if status != 200:
        assert set(json.loads(said)) == {"error"}


@pytest.mark.parametrize("fault", list(faults()), ids=lambda fault: fault.name)
def test_triton_answers_in_the_same_class_or_we_know_why_not(triton: str, fault: Fault) -> None:
    status, said = send(triton, fault)
    wanted = fault.triton or fault.status
    assert status // 100 == wanted // 100, f"{status}: {said[:500]!r}"
    if fault.triton:
        assert fault.why and fault.triton != fault.status
