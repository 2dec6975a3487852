"""Metrics are told in Prometheus' format, on a port that says when it cannot be had."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from penstock.data.prometheus import MetricsPort, text
from penstock.errors import RequestError


def test_only_what_has_values_is_told_and_labels_are_escaped() -> None:
    described = {"events_total": "Events.", "up": "Whether.", "lag": "Lag."}
    labels = {"topic": 'a"b\\c\nd', "partition": "0"}
    told = text("penstock_x", described, {"up": [({}, 1)], "events_total": [(labels, 2.5)], "lag": []})
    assert told.splitlines() == [
        "# HELP penstock_x_events_total Events.",
        "# TYPE penstock_x_events_total counter",
        'penstock_x_events_total{topic="a\\"b\\\\c\\nd",partition="0"} 2.5',
        "# HELP penstock_x_up Whether.",
        "# TYPE penstock_x_up gauge",
        "penstock_x_up 1",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_who_asks_before_there_is_an_answer_waits_for_it(host: str) -> None:
    try:
        port = MetricsPort(f"{host}:0")
    except RequestError:
        pytest.skip(f"this machine has no {host}")
    got: list[bytes] = []
    with port:
        asking = threading.Thread(target=lambda: got.append(read(f"http://{port.address}/metrics")))
        asking.start()
        port.serve(lambda: "up 1\n")
        asking.join(10)
        assert got == [b"up 1\n"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            read(f"http://{port.address}/")


def read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as reply:
        body: bytes = reply.read()
        return body


@pytest.mark.parametrize("listen", ["127.0.0.1:{taken}", "192.0.2.1:0", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_had_is_told_with_what_to_do(listen: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(RequestError, match="metrics cannot be served on") as found:
            MetricsPort(listen.format(taken=other.getsockname()[1]))
    assert found.value.code == "DATA025" and "port 0" in found.value.hint


def test_loop_and_join_say_so_before_they_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from penstock.cli.main import main

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        (tmp_path / "run.toml").write_text(
            f'[model]\nname = "x"\nstart = "no-such-bundle"\n[samples]\ntopic = "log:s"\n'
            f'[checkpoints]\nfolder = "cuts"\n[watch]\nlisten = "{taken}"\n'
        )
        (tmp_path / "join.toml").write_text(
            f'name = "x"\nstate = "state"\nmetrics = "{taken}"\n[impressions]\ntopic = "log:i"\n'
            f'[feedback]\ntopic = "log:f"\n[samples]\ntopic = "log:s"\n[types.click]\nwindow = "1m"\n'
        )
        for word in ("run", "join"):
            assert main(["online", word, str(tmp_path / f"{word}.toml")]) == 2
            said = capsys.readouterr().err
            assert f"DATA025 metrics cannot be served on {taken}: address already in use" in said
    assert {path.name for path in tmp_path.iterdir()} == {"run.toml", "join.toml"}
