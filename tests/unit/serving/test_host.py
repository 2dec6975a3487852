"""The host as its users meet it: a process that answers, changes by its file and by release commands, and ends well."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from penstock.serving.client import Client, ServingError
from penstock.training.bundle import load

COMMAND = [sys.executable, "-m", "penstock.cli"]


class Host:
    """A `penstock serve` of its own, in a folder of its own."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.config = folder, folder / "serving.toml"
        self.config.write_text(text)
        self.log = (folder / "log").open("w+")
        self.environment = {**os.environ, "PENSTOCK_HOME": str(folder / "home")}
        self.clients: list[Client] = []
        self.process = subprocess.Popen(
            [*COMMAND, "serve", str(self.config)], stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=self.environment,
        )  # fmt: skip

    def ready(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        came, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if came else ""
        assert line.startswith("serving http="), (self.folder / "log").read_text()
        _, http, grpc = line.split()
        return "http://" + http.removeprefix("http="), grpc.removeprefix("grpc=")

    def client(self, url: str, retries: int = 2) -> Client:
        self.clients.append(Client(url, retries=retries))
        return self.clients[-1]

    def release(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "release", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def checked(self) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "serve", "--check", str(self.config)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def logged(self, event: str) -> list[dict[str, object]]:
        lines = (json.loads(line) for line in (self.folder / "log").read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self) -> None:
        self.log.close()
        for client in self.clients:
            client.close()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    hosts: list[Host] = []

    def start(text: str) -> Host:
        folder = tmp_path / str(len(hosts))
        folder.mkdir()
        hosts.append(Host(folder, text + "\n[host]\ndrain_s = 0\naliases_every_s = 0.3\n"))
        return hosts[-1]

    yield start
    for host in hosts:
        host.stop()
        host.close()


def versions(trained: Path, *names: str, traffic: str = "") -> str:
    listed = "\n".join(f'{at} = "{trained / name}"' for at, name in enumerate(names, 1))
    return f"[models.m.versions]\n{listed}\n{traffic}"


def until(holds: Callable[[], bool], patience_s: float = 20) -> None:
    ends = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


def test_scores_over_both_doors_are_predicts(serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame) -> None:
    from penstock.serving.grpc_client import GrpcClient

    host = serve(versions(trained, "gbdt_lr"))
    url, grpc = host.ready()
    expected = load(trained / "gbdt_lr").score(fresh)
    client = host.client(url)
    reply = client.infer("m", fresh, request_id="r-1")
    assert (reply.version, reply.request_id, len(reply.bundle)) == ("1", "r-1", 64)
    np.testing.assert_allclose(reply.outputs["score"], expected, rtol=0, atol=1e-6)
    pytest.importorskip("grpc")
    over_grpc = GrpcClient(grpc)
    np.testing.assert_allclose(over_grpc.infer("m", fresh).outputs["score"], expected, rtol=0, atol=1e-6)
    over_grpc.close()
    with pytest.raises(ServingError, match="input 'visits' is FP64, not INT64") as refused:
        _post(url, {"inputs": [{"name": "visits", "datatype": "FP64", "shape": [1], "data": [1.5]}]})
    assert refused.value.status == 400
    with pytest.raises(ServingError, match="no model 'nobody'"):
        client.infer("nobody", fresh)
    assert 'model="m"' in urllib.request.urlopen(f"{url}/metrics").read().decode()
    assert host.stop() == 0
    assert host.logged("stopped")[0]["drained"] is True


def _post(url: str, body: object) -> None:
    with Client(url) as client:
        client._ask("POST", "/v2/models/m/infer", json.dumps(body).encode(), {}, 5)


def test_a_canary_is_released_promoted_and_taken_back(
    serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame
) -> None:
    host = serve(versions(trained, "gbdt", "gbdt_lr", traffic="[models.m.traffic]\n1 = 100\n"))
    url, _ = host.ready()
    client = host.client(url)

    def answered() -> set[str]:
        return {client.infer("m", fresh[at : at + 1]).version for at in range(60)}

    assert answered() == {"1"}
    assert host.release("m/2", "--canary", "50", "--sticky", "user").stdout == "m: 1 50 %, 2 50 %\n"
    assert answered() == {"1", "2"}
    same_user = {client.infer("m", fresh[7:8]).version for _ in range(20)}
    assert len(same_user) == 1, "a user stays with one version"
    assert client.infer("m", fresh[:1], version="2").version == "2"
    status = json.loads(host.release("status", "m", "--json").stdout)
    assert [(v["version"], v["role"], v["percent"]) for v in status["versions"]] == [
        ("1", "live", 50),
        ("2", "canary", 50),
    ]
    assert host.release("promote", "m").returncode == 0
    assert answered() == {"2"}
    back = host.release("rollback", "m", "--why", "it was worse")
    assert back.stdout == "m: 1 100 %\n" and answered() == {"1"}
    changes = json.loads(host.release("status", "m", "--json").stdout)["changes"]
    assert [c["what"] for c in changes] == ["rollback from 2 to 1", "promote 2", "canary 2 at 50 %"]
    assert changes[0]["why"] == "it was worse"


def test_overrides_outlive_a_restart_and_end_with_the_models_block(
    serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame
) -> None:
    text = versions(trained, "gbdt", "gbdt_lr", traffic="[models.m.traffic]\n1 = 100\n")
    host = serve(text)
    host.ready()
    assert host.release("m/2").returncode == 0
    assert host.stop() == 0
    again = Host(host.folder, host.config.read_text())
    try:
        client = again.client(again.ready()[0])
        assert client.infer("m", fresh[:1]).version == "2"
        again.config.write_text(
            again.config.read_text().replace("1 = 100", "1 = 100.0 # touched\n[models.m.guards]\nmin_requests = 300")
        )
        until(lambda: client.infer("m", fresh[:1]).version == "1")
    finally:
        assert again.stop() == 0
        again.close()


def test_a_bad_change_of_the_file_is_refused_and_what_served_stays(
    serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame
) -> None:
    host = serve(versions(trained, "gbdt"))
    client = host.client(host.ready()[0])
    good = host.config.read_text()
    for bad in (good.replace("[host]", "[hots]"), good.replace(str(trained / "gbdt"), str(trained / "nothing"))):
        before = len(host.logged("configuration_refused"))
        host.config.write_text(bad)
        until(lambda: len(host.logged("configuration_refused")) > before)  # noqa: B023
        assert client.infer("m", fresh[:1]).version == "1"
    host.config.write_text(good.replace("1 =", "7 ="))
    until(lambda: client.infer("m", fresh[:1]).version == "7")


def test_a_model_that_does_not_load_keeps_the_host_from_being_ready_and_the_others_serve(
    serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame
) -> None:
    text = versions(trained, "gbdt") + f'[models.lost.versions]\n1 = "{trained / "nothing"}"\n'
    host = serve(text)
    until(lambda: (host.config.parent / ".penstock-serve" / "serving" / "status.json").exists())
    status = json.loads((host.config.parent / ".penstock-serve" / "serving" / "status.json").read_text())
    client = host.client(f"http://{status['http']}")
    assert not status["ready"] and not client.ready() and client.ready("m")
    assert client.infer("m", fresh[:1]).version == "1"
    host.config.write_text(
        host.config.read_text().replace(
            "[models.lost.versions]", "[models.lost]\noptional = true\n[models.lost.versions]"
        )
    )
    until(client.ready)


def test_a_crashed_host_is_started_again_where_it_was(
    serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame
) -> None:
    host = serve(versions(trained, "gbdt"))
    url, _ = host.ready()
    status = host.config.parent / ".penstock-serve" / "serving" / "status.json"
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    client = host.client(url, retries=0)
    until(client.ready)
    assert client.infer("m", fresh[:1]).version == "1"
    assert host.logged("host_crashed")[0]["signal"] == "SIGKILL"
    assert host.stop() == 0


def test_every_answered_row_is_in_the_topic_though_the_host_is_killed(
    serve: Callable[[str], Host], trained: Path, fresh: pl.DataFrame
) -> None:
    """kill -9 under load, twice: what a client has an answer to is there, with what it was scored by."""
    import threading

    from penstock.streams import open_topic

    host = serve(
        versions(trained, "gbdt")
        + '\n[impressions]\ntopic = "log:impressions?partitions=2"\ntick_ms = 5\ndeny = ["title"]\n'
    )
    url, _ = host.ready()
    status = host.config.parent / ".penstock-serve" / "serving" / "status.json"
    answered: dict[str, list[float]] = {}
    over = threading.Event()

    def ask(worker: int) -> None:
        client, number = Client(url, retries=0), 0
        while not over.is_set():
            number += 1
            name = f"w{worker}-{number}"
            try:
                reply = client.infer("m", fresh[number % 300 : number % 300 + 3], request_id=name)
            except ServingError:
                time.sleep(0.02)
                continue
            answered[reply.request_id] = reply.outputs["score"].tolist()
        client.close()

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for kill in range(2):
        until(lambda enough=40 * (kill + 1): len(answered) >= enough, 60)
        os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    until(lambda: len(answered) >= 120, 60)
    over.set()
    for worker in workers:
        worker.join()
    assert len(host.logged("host_crashed")) == 2
    found, ticks = {}, 0
    with open_topic(f"log:{host.folder / 'impressions'}") as topic:
        for partition in range(topic.partitions):
            at = topic.start(partition)
            while (batch := topic.read(partition, at)).records:
                for record in batch.records:
                    value = json.loads(record.value)
                    ticks += "_tick_ms" in value
                    if "id" in value:
                        assert record.key == value["id"].encode() and "title" not in value["features"]
                        found[value["id"]] = value
                at = batch.next
    assert ticks > 2
    for request, scores in answered.items():
        told = [found[f"{request}/{row}"] for row in range(3)]
        np.testing.assert_allclose([one["score"] for one in told], scores, rtol=1e-6)
        assert {(one["model"], one["version"], one["shadow"]) for one in told} == {("m", "1", False)}
    metrics = urllib.request.urlopen(f"{url}/metrics").read().decode()
    assert "penstock_impressions_lost_total 0\n" in metrics
    assert host.stop() == 0


def test_a_version_that_cannot_answer_lives_requests_is_refused_a_share(
    serve: Callable[[str], Host], trained: Path
) -> None:
    host = serve(versions(trained, "gbdt", "gbdt_raw", traffic="[models.m.traffic]\n1 = 100\n"))
    host.ready()
    refused = host.release("m/2", "--canary", "10")
    assert refused.returncode == 1 and "SERV008" in refused.stderr and "it does not take 'user'" in refused.stderr
    assert host.checked().returncode == 0
    host.config.write_text(host.config.read_text().replace("1 = 100", "1 = 90\n2 = 10"))
    check = host.checked()
    assert check.returncode == 2 and "SERV008" in check.stderr


def test_two_hosts_of_one_configuration_are_one_too_many(serve: Callable[[str], Host], trained: Path) -> None:
    host = serve(versions(trained, "gbdt"))
    host.ready()
    second = subprocess.run(
        [*COMMAND, "serve", str(host.config)], capture_output=True, text=True, env=host.environment, timeout=30
    )
    assert second.returncode == 1 and "another host serves" in second.stderr


def test_a_port_in_use_is_said_so(serve: Callable[[str], Host], trained: Path) -> None:
    url, _ = serve(versions(trained, "gbdt")).ready()
    second = serve(versions(trained, "gbdt") + f'\n[listen]\nhttp = "{url.removeprefix("http://")}"\n')
    assert second.process.wait(20) == 2
    assert "cannot be bound" in (second.folder / "log").read_text()
