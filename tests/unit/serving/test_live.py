"""Live parameters: what is served is the trainer's table at one sequence, whatever happens meanwhile."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import native
from penstock.registry.chain import ChainHead, Publisher, records
from penstock.registry.chain_records import Assembler, Whole
from penstock.serving.client import Client
from penstock.serving.grpc_client import GrpcClient
from penstock.streams import open_topic

from .live_model import OF, Trainer, scores, served, tables

pytest.importorskip("onnx")

#: A power of two, so that a mean of equal rows is their value to the bit.
KEYS = list(range(256))


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(x))))


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    made = Trainer(tmp_path, f"log:{tmp_path}/chain")
    yield made
    made.close()


def deltas(trainer: Trainer) -> list[Whole]:
    assembler = Assembler("m")
    topic = trainer.topic
    found = [assembler.take(record) for record in records(topic, 0, topic.start(0), None)]
    return [one for one in found if isinstance(one, Whole)]


def apply(following: native.Following, delta: Whole) -> None:
    following.apply([part.record for part in delta.records], delta.generation, delta.to)


# --- the model itself ---


def test_without_a_delta_a_live_model_scores_with_the_bundles_bits(trainer: Trainer) -> None:
    trainer.put(KEYS, 0.25)
    bundle = trainer.written("b")
    ids = [[1, 2, 3], [999], [], KEYS]
    still, live = served(bundle, None), served(bundle)
    assert still.following() is None and still.position is None
    assert scores(live, ids).tobytes() == scores(still, ids).tobytes()
    assert live.position == (0, 0)


def test_a_model_that_applied_the_chain_is_the_trainers_key_by_key(trainer: Trainer) -> None:
    model = served(trainer.first)
    following = model.following()
    assert following is not None
    draw = np.random.default_rng(3)
    for turn in range(5):
        for key in draw.integers(0, 300, 50):
            trainer.put([int(key)], float(draw.normal()))
        trainer.publish(c=0.1 * turn if turn % 2 else None)
        apply(following, deltas(trainer)[-1])
        wanted = trainer.tables.lookup("ids", np.arange(300))[:, 0].astype(np.float32) - np.float32(trainer.c)
        found = scores(model, [[key] for key in range(300)])
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-wanted.astype(np.float64))), rtol=0, atol=1e-7)
        assert model.position == (1, turn + 1) and following.progress()[:2] == (1, turn + 1)  # type: ignore[index]


def test_a_run_sees_rows_and_weights_of_one_delta_while_deltas_are_applied(trainer: Trainer) -> None:
    """Every delta sets all rows and the weight to its number: a run that sees two of them does not score one half."""
    model = served(trainer.first)
    following = model.following()
    assert following is not None
    for turn in range(1, 151):
        trainer.put(KEYS, float(turn))
        trainer.publish(c=float(turn))
    chain, done = deltas(trainer), threading.Event()

    def follow() -> None:
        for number, delta in enumerate(chain):
            apply(following, delta)
            if number % 20 == 0:  # a run at least is made before the next, however fast this is
                runs = len(seen)
                while len(seen) == runs:
                    time.sleep(0.001)
        done.set()

    seen: list[int] = []
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    while not done.is_set():
        assert set(scores(model, [KEYS, KEYS[:8], KEYS]).tolist()) == {0.5}
        assert model.position is not None
        seen.append(model.position[1])
    thread.join()
    assert scores(model, [KEYS]).tolist() == [0.5] and model.position == (1, 150)
    assert seen == sorted(seen) and len(set(seen)) > 5, "too few deltas were met to prove anything"


def test_a_delta_that_does_not_fit_changes_nothing(trainer: Trainer) -> None:
    model = served(trainer.first, overlay_bytes=100 * (4 * 5 + 32))
    following = model.following()
    assert following is not None
    trainer.put(KEYS[:64], 1.0)
    trainer.publish(c=1.0)
    apply(following, deltas(trainer)[-1])
    trainer.put(KEYS[50:160], 2.0)
    trainer.publish(c=2.0)
    with pytest.raises(ValueError, match="the overlay of table 'rows' is full"):
        apply(following, deltas(trainer)[-1])
    two = [("c", [2], np.zeros(2, np.float32))]
    wrong = native.delta_records((1, 2, 2, 1), [], two, 0, 0, ("m", "", "", "{}"), 999)
    with pytest.raises(ValueError, match=r"weight 'c' is of shape \[1\], in the delta \[2\]"):
        following.apply(wrong[:-1], 1, 2)
    assert scores(model, [KEYS[:64]]).tolist() == [0.5] and model.position == (1, 1)


def test_a_newer_base_is_shown_when_it_has_caught_up(trainer: Trainer) -> None:
    model = served(trainer.first)
    following = model.following()
    assert following is not None
    trainer.put(KEYS, 3.0)
    trainer.publish(c=3.0)
    base = trainer.base("base-1")
    trainer.put(KEYS[:1], 4.0)
    trainer.publish()
    following.stage(base, 1, 1)
    apply(following, deltas(trainer)[-1])
    assert scores(model, [[1]]).tolist() == [0.5] and model.position == (0, 0)
    following.show()
    assert scores(model, [[1]]).tolist() == [0.5] and model.position == (1, 2)
    assert scores(model, [[0]])[0] == pytest.approx(sigmoid(1.0), abs=1e-7)


# --- hosts that follow ---


class Host:
    """`penstock serve` of the model, following the topic."""

    def __init__(
        self, folder: Path, trainer: Trainer, max_lag_s: float = 5.0, topic: str = "", overlay_mb: int = 8
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        (folder / "serving.toml").write_text(
            f'[models.m.versions]\n1 = "{trainer.first}"\n[models.m.live]\n'
            f'topic = "{topic or trainer.topic.name}"\nmax_lag_s = {max_lag_s}\noverlay_mb = {overlay_mb}\n'
            "[host]\ndrain_s = 0\n"
        )
        self.start()

    def start(self) -> None:
        self.log = (self.folder / "log").open("a")
        command = [sys.executable, "-m", "penstock.cli", "serve", str(self.folder / "serving.toml")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        came, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if came else ""
        assert line.startswith("serving http="), (self.folder / "log").read_text()
        self.url = "http://" + line.split()[1].removeprefix("http=")
        self.grpc = line.split()[2].removeprefix("grpc=")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def ask(self, ids: list[list[int]]) -> tuple[list[float], dict[str, Any]]:
        data = [json.dumps(row) for row in ids]
        body = {"inputs": [{"name": "ids", "datatype": "BYTES", "shape": [len(ids)], "data": data}]}
        given = urllib.request.Request(f"{self.url}/v2/models/m/infer", json.dumps(body).encode())
        with urllib.request.urlopen(given, timeout=10) as reply:
            said = json.loads(reply.read())
        return said["outputs"][0]["data"], said["parameters"]

    def at(self) -> tuple[int, int]:
        about = self.ask([[0]])[1]
        return about["generation"], about["sequence"]

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        if with_signal == signal.SIGKILL:
            for child in children:  # the host itself, which its supervisor would start anew
                subprocess.run(["kill", "-9", child], check=False)
        self.process.send_signal(with_signal)
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(trainer: Trainer, **more: Any) -> Host:
        hosts.append(Host(tmp_path / f"host{len(hosts)}", trainer, **more))
        return hosts[-1]

    yield start
    for one in hosts:
        if one.process.poll() is None:
            one.stop()


def until(holds: Callable[[], bool], patience_s: float = 30) -> None:
    ends = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


def test_two_hosts_follow_and_one_that_was_killed_catches_up(trainer: Trainer, host: Callable[..., Host]) -> None:
    trainer.put(KEYS, 1.0)
    trainer.publish(c=1.0)
    first, second = host(trainer), host(trainer)
    assert first.at() == second.at() == (1, 1), "ready is not before it has caught up"
    for turn in range(2, 12):
        trainer.put(KEYS, float(turn))
        trainer.publish(c=float(turn))
        if turn == 6:
            first.stop(signal.SIGKILL)
    until(lambda: second.at() == (1, 11))
    first.start()
    assert first.at() == (1, 11)
    with Client(first.url) as client:
        assert client.infer("m", {"ids": ["[0]"]}).position == (1, 11)
    over_grpc = GrpcClient(first.grpc)
    assert over_grpc.infer("m", {"ids": ["[0]"]}).position == (1, 11)
    over_grpc.close()
    for one in (first, second):
        found, about = one.ask([KEYS, [0], [9999]])
        assert found[:2] == [0.5, 0.5] and (about["generation"], about["sequence"]) == (1, 11)
        assert found[2] == pytest.approx(sigmoid(-11.0), abs=1e-7)
        status, text = one.get("/metrics")
        assert status == 200 and 'penstock_chain_sequence{model="m",version="1"} 11' in text
        assert "penstock_chain_lag_seconds" in text


def test_damage_and_gaps_make_a_host_take_the_newest_base(
    trainer: Trainer, host: Callable[..., Host], tmp_path: Path
) -> None:
    for turn in range(1, 5):
        trainer.put(KEYS, float(turn))
        trainer.publish(c=float(turn))
    copied = list(records(trainer.topic, 0, trainer.topic.start(0), None))
    with open_topic(f"log:{tmp_path}/bad") as bad:

        def append(some: list[Any]) -> None:
            bad.append([r.value for r in some], keys=[r.key for r in some])

        damaged = [r._replace(value=r.value[:-1] + bytes([r.value[-1] ^ 1])) for r in copied[7:8]]
        append(copied[:4])  # the beginning, and delta 1
        one = host(trainer, max_lag_s=2.0, topic=bad.name)
        assert one.at() == (1, 1)
        append(damaged + copied[7:])
        time.sleep(0.5)
        assert one.at() == (1, 1) and one.ask([KEYS])[0] == [0.5], "what was applied last goes on being served"
        until(lambda: one.get("/v2/health/ready")[0] != 200)
        assert "CHAIN001" in (one.folder / "log").read_text()
        # The trainer announces a base of sequence 3: from there the rest can be applied.
        three = copied[:10]
        base = Trainer(tmp_path / "three", f"log:{tmp_path}/three/chain")
        base.put(KEYS, 3.0)
        base.c = 3.0
        folder = base.written("base-3")
        announced = Publisher(bad, "m", 1, plan="", base=trainer.digest)
        announced._writer = trainer.publisher._writer
        announced._seen = bad.end(0)
        from penstock.registry import bundles

        offset = next(r.offset for r in records(bad, 0, 0, None) if r.value == copied[10].value)
        announced.announce(str(folder), digest=bundles.digest_of_folder(folder), sequence=3, offset=offset)
        assert len(three) == 10
        until(lambda: one.at() == (1, 4) and one.get("/v2/health/ready")[0] == 200)
        assert one.ask([KEYS])[0] == [0.5]
        assert "chain_rebased" in (one.folder / "log").read_text()
        base.close()


def test_a_full_overlay_is_emptied_by_a_base_that_the_host_has_passed_already(
    trainer: Trainer, host: Callable[..., Host]
) -> None:
    one = host(trainer, overlay_mb=1)
    capacity = (1 << 20) // (4 * 5 + 32)
    trainer.put(range(capacity - 100), 1.0)
    trainer.publish()
    trainer.base("base-1")
    trainer.put([7], 2.0)
    trainer.publish()
    until(lambda: one.at() == (1, 2))
    trainer.put(range(capacity, capacity + 200), 3.0)
    trainer.publish()
    until(lambda: one.at() == (1, 3))
    assert one.ask([[6], [7], [capacity + 199]])[0] == pytest.approx([sigmoid(x) for x in (1.0, 2.0, 3.0)], abs=1e-6)
    assert 'penstock_chain_rebased_total{model="m",version="1"} 1' in one.get("/metrics")[1]


def test_a_newer_generation_takes_over_and_an_older_one_is_refused(trainer: Trainer, host: Callable[..., Host]) -> None:
    trainer.put(KEYS, 1.0)
    cut = trainer.publish(c=1.0)
    trainer.put([*KEYS, 500], 2.0)
    trainer.publish(c=2.0)
    one = host(trainer)
    assert one.at() == (1, 2)
    recovered = tables()
    recovered.native.track_changes("chain")
    again = Trainer(trainer.folder, trainer.topic.name, generation=2, held=recovered)
    again.put(KEYS, 1.0)
    weights = {"c": np.float32([1.0])}
    again.publisher.restore(
        recovered.native, after=ChainHead("m", 1, cut.sequence), offset=cut.last + 1, dense=weights, **OF
    )
    until(lambda: one.at() == (2, 1))
    found, _ = one.ask([KEYS, [500]])
    assert found[0] == 0.5 and found[1] == pytest.approx(sigmoid(-1.0), abs=1e-7)
    mark, nine = (1, 3, 3, trainer.publisher._writer), [("c", [1], np.float32([9.0]))]
    zombie = native.delta_records(mark, [], nine, 0, 0, ("m", "", trainer.digest, "{}"), 999)
    trainer.topic.append(zombie, keys=[b"m"] * len(zombie))
    again.put(KEYS[:1], 1.0)
    again.publish()
    until(lambda: one.at() == (2, 2))
    assert one.ask([KEYS])[0] == [0.5]
    again.close()


def test_a_version_of_another_chain_brings_its_chain_with_it(tmp_path: Path, host: Callable[..., Host]) -> None:
    """As where an alias goes over to a second loop's version: the host is told of nothing but the version."""
    first = Trainer(tmp_path, f"log:{tmp_path}/m")
    second = Trainer(tmp_path / "second", f"log:{tmp_path}/m-2", generation=7, chain="m-2")
    for trainer, value in ((first, 1.0), (second, 2.0)):
        trainer.put(KEYS, value)
        trainer.publish(c=value)
    one = host(first, topic=f"log:{tmp_path}/{{chain}}")
    assert one.at() == (1, 1) and one.ask([KEYS])[0] == [0.5]
    file = one.folder / "serving.toml"
    file.write_text(file.read_text().replace(str(first.first), str(second.first)))
    until(lambda: one.at() == (7, 1))
    first.put(KEYS, 5.0)
    first.publish()
    second.put(KEYS, 3.0)
    second.publish(c=3.0)
    until(lambda: one.at() == (7, 2))
    assert one.ask([KEYS])[0] == [0.5]
    first.close()
    second.close()
