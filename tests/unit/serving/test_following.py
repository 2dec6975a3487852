"""What a host that follows does not take in: numbers that are none, and bases that are not what was announced."""

from __future__ import annotations

import shutil
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xxhash

from penstock.registry.bundles import digest_of_folder
from penstock.serving import config as configs
from penstock.serving import follow
from penstock.serving.client import Client
from penstock.serving.host import Control

from .live_model import Trainer
from .test_live import until

pytest.importorskip("onnx")

#: A power of two, so that a mean of equal rows is their value to the bit.
KEYS = list(range(256))
#: Of records (docs/live-parameters.md): bytes before the body, kinds.
HEAD, ROWS, DENSE = 64, 1, 2


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    made = Trainer(tmp_path, f"log:{tmp_path}/chain")
    yield made
    made.close()


class Host:
    """What `penstock serve` runs, in this process."""

    def __init__(self, control: Control, capfd: pytest.CaptureFixture[str]) -> None:
        self.control, self._capfd, self._said = control, capfd, ""
        self.url = f"http://{control.host.addresses[0]}"

    @property
    def ready(self) -> bool:
        return bool(self.control.host.ready())

    def at(self) -> tuple[int, int] | None:
        """Where it stands. All that it answers is one half: rows and the weight are of one delta, and numbers."""
        with Client(self.url, retries=0) as client:
            reply = client.infer("m", {"ids": [str(KEYS)]})
        assert reply.outputs["score"].tolist() == [0.5]
        return reply.position

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"penstock_chain_{name}{{")).split()[-1])

    def said(self, event: str) -> list[str]:
        """Lines of the log."""
        self._said += self._capfd.readouterr().err
        return [line for line in self._said.splitlines() if f'"event": "{event}"' in line]


@pytest.fixture
def host(trainer: Trainer, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], Host]]:
    """Starts a host that follows the trainer's chain."""
    path = trainer.folder / "serving.toml"
    path.write_text(
        f'[models.m.versions]\n1 = "{trainer.first}"\n[models.m.live]\ntopic = "{trainer.topic.name}"\n'
        "overlay_mb = 4\n[host]\ndrain_s = 0\n"
    )
    with ExitStack() as ends:

        def start() -> Host:
            control = Control(configs.read(path))
            thread = threading.Thread(target=control.run, args=(lambda *_: None,), daemon=True)
            thread.start()
            ends.callback(control.drain)
            ends.callback(thread.join)
            ends.callback(control.stop.set)
            return Host(control, capfd)

        yield start


# --- numbers that are none ---


def spoilt(written: Sequence[bytes], kind: int, change: Callable[[bytes], bytes]) -> list[bytes]:
    """The records of a delta, its parts of a kind changed, every sum as it must be."""
    parts = [sealed(r, change(r[HEAD:])) if struct.unpack_from("<H", r, 10) == (kind,) else r for r in written[:-1]]
    sums = b"".join(struct.pack("<Q", xxh3(part[HEAD:])) for part in parts)
    return [*parts, sealed(written[-1], struct.pack("<Q", xxh3(sums)) + written[-1][HEAD + 8 :])]


def sealed(record: bytes, body: bytes) -> bytes:
    head = record[:48] + struct.pack("<II", len(body), 0)
    return head + struct.pack("<Q", xxh3(head + struct.pack("<Q", xxh3(body)))) + body


def xxh3(data: bytes) -> int:
    return int(xxhash.xxh3_64_intdigest(data))


def ends_in_nan(body: bytes) -> bytes:
    """Rows and dense weights end with values, where no key is gone."""
    return body[:-4] + struct.pack("<f", np.nan)


def as_halves_of_which_one_is_infinite(body: bytes) -> bytes:
    table, dim, _, count, gone, _ = struct.unpack_from("<6I", body)
    keys, values = body[24 : 24 + 8 * count], np.frombuffer(body[24 + 8 * count :], np.float32).astype(np.float16)
    values[7] = np.inf
    return struct.pack("<6I", table, dim, 2, count, gone, 0) + keys + values.tobytes()


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (ROWS, ends_in_nan, "table 0: the row of key "),
        (ROWS, as_halves_of_which_one_is_infinite, "table 0: the row of key "),
        (DENSE, ends_in_nan, "weight 'c' holds a "),
    ],
)
def test_a_delta_with_a_number_that_is_none_is_refused_and_the_next_base_gone_on_from(
    kind: int,
    change: Callable[[bytes], bytes],
    said: str,
    trainer: Trainer,
    host: Callable[[], Host],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def publish(value: float) -> None:
        trainer.put(KEYS, value)
        trainer.publish(c=value)

    def append(written: Sequence[bytes]) -> tuple[int, int]:
        assert spoilt(written, kind, lambda body: body) == written
        return whole(spoilt(written, kind, change))

    publish(1.0)
    one = host()
    until(lambda: one.ready and one.at() == (1, 1))
    whole = trainer.publisher._append
    with monkeypatch.context() as spoiling:
        spoiling.setattr(trainer.publisher, "_append", append)
        publish(2.0)
    publish(3.0)
    until(lambda: bool(one.said("chain_stopped")))
    assert one.at() == (1, 1) and one.metric("deltas_total") == 1
    trainer.base("base-3")
    until(lambda: one.at() == (1, 3))
    publish(4.0)
    until(lambda: one.at() == (1, 4))
    assert one.metric("deltas_total") == 2 and one.metric("rebased_total") == 1
    (line,) = one.said("chain_stopped")
    assert "CHAIN003" in line and said in line


# --- bases of elsewhere ---


@pytest.fixture
def far(tmp_path: Path) -> Iterator[str]:
    """An address that is not of this machine's disks."""
    address = f"memory://{tmp_path.name}"
    yield address
    system, path = fsspec.core.url_to_fs(address)
    if system.exists(path):
        system.rm(path, recursive=True)


def announced(trainer: Trainer, address: str) -> str:
    """A base as of the last delta, at the address and nowhere else; its digest."""
    assert trainer.done is not None
    folder, at = trainer.written("base"), trainer.done
    digest = digest_of_folder(folder)
    system, path = fsspec.core.url_to_fs(address)
    system.put(str(folder), path, recursive=True)
    shutil.rmtree(folder)
    trainer.publisher.announce(address, digest=digest, sequence=at.sequence, offset=at.last + 1)
    return digest


def test_a_base_of_elsewhere_is_fetched_and_served(trainer: Trainer, host: Callable[[], Host], far: str) -> None:
    trainer.put(KEYS, 1.0)
    trainer.publish(c=1.0)
    digest = announced(trainer, f"{far}/base")
    one = host()
    until(lambda: one.ready and one.at() == (1, 1))
    assert one.metric("deltas_total") == 0, "it comes from the base, and from no delta"
    assert digest_of_folder(one.control.state / "bases" / "m-1" / digest) == digest
    trainer.put(KEYS, 2.0)
    trainer.publish(c=2.0)
    until(lambda: one.at() == (1, 2))


def one_bit_off(content: bytes) -> bytes:
    return content[:-2] + bytes([content[-2] ^ 1, content[-1]])


def a_line_longer(content: bytes) -> bytes:
    return content + b"\n"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("rows.snapshot", one_bit_off),
        ("dense.onnx", one_bit_off),
        ("manifest.json", one_bit_off),
        ("manifest.json", a_line_longer),
    ],
)
def test_a_damaged_base_of_elsewhere_is_refused_until_it_is_what_was_announced(
    file: str,
    change: Callable[[bytes], bytes],
    trainer: Trainer,
    host: Callable[[], Host],
    far: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "AGAIN_S", 0.1)
    trainer.put(KEYS, 1.0)
    trainer.publish(c=1.0)
    announced(trainer, f"{far}/base")
    system, path = fsspec.core.url_to_fs(f"{far}/base/{file}")
    kept = system.cat_file(path)
    system.pipe_file(path, change(kept))
    one = host()
    until(lambda: bool(one.said("chain_stopped")))
    (line,) = one.said("chain_stopped")
    assert "CHAIN012" in line and f"{far}/base" in line
    assert not one.ready and one.at() == (0, 0)
    system.pipe_file(path, kept)
    until(lambda: one.ready and one.at() == (1, 1))


def test_a_base_that_came_damaged_is_not_fetched_again_at_once(
    trainer: Trainer, host: Callable[[], Host], far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.put(KEYS, 1.0)
    trainer.publish(c=1.0)
    announced(trainer, f"{far}/base")
    system, path = fsspec.core.url_to_fs(f"{far}/base/dense.onnx")
    system.pipe_file(path, b"")
    fetched, get = [], type(system).get
    monkeypatch.setattr(type(system), "get", lambda *given, **more: fetched.append(get(*given, **more)))
    one = host()
    until(lambda: bool(one.said("chain_stopped")))
    time.sleep(2.5 * follow.PAUSE_S)
    assert len(fetched) == 1 and len(one.said("chain_stopped")) == 1
    trainer.put(KEYS, 2.0)
    trainer.publish(c=2.0)
    announced(trainer, f"{far}/next")
    until(lambda: one.ready and one.at() == (1, 2))
