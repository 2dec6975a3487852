"""What a reply waits for before it is sent, and a host whose disk for impressions is full."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from penstock.serving.client import Client
from penstock.streams import Record, open_topic
from penstock.training.bundle import load

from .test_host import Host, serve, until, versions  # noqa: F401

#: No tick and no sync of its own comes between the requests of a test.
QUIET = "tick_ms = 60000\n"
ALONE = "log:impressions?sync=1h"


def configured(trained: Path, ack: str, topic: str, more: str = "") -> str:
    return f'{versions(trained, "gbdt")}\n[impressions]\ntopic = "{topic}"\nack = "{ack}"\n{more}'


def counted(url: str) -> dict[str, int]:
    """written_total, lost_total, waiting_bytes."""
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    return {name: int(value) for name, value in re.findall(r"^penstock_impressions_(\w+) (\d+)$", text, re.MULTILINE)}


def records(folder: Path) -> list[Record]:
    with open_topic(f"log:{folder}", create=False) as topic:
        found = topic.read(0, topic.start(0)).records
    return [record for record in found if b"_tick_ms" not in record.value]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """As while another process appends: nobody else does."""
    with (folder / "0" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unsynced(folder: Path) -> list[int]:
    """For each record, how many before it were not known to be synced when it was written (docs/streams.md)."""
    data, at, found = (folder / "0" / f"{1:020}.log").read_bytes(), 88, []
    while at < len(data):
        (size,), (_, before) = struct.unpack_from("<I", data, at), struct.unpack_from("<II", data, at + 24)
        found.append(before)
        at += size
    return found


@pytest.mark.parametrize(("ack", "waits", "synced"), [("none", False, False), ("written", True, False),
                                                      ("synced", True, True)])  # fmt: skip
def test_a_reply_waits_for_what_ack_says_and_every_row_is_written(
    serve: Callable[[str], Host],  # noqa: F811
    trained: Path,
    fresh: pl.DataFrame,
    ack: str,
    waits: bool,
    synced: bool,
) -> None:
    host = serve(configured(trained, ack, ALONE, QUIET))
    url, _ = host.ready()
    folder = host.folder / "impressions"
    expected = load(trained / "gbdt").score(fresh)

    def asked(at: int) -> bool:
        with Client(url, retries=0) as client:
            reply = client.infer("m", fresh[at : at + 1], request_id=f"r-{at}")
        return reply.outputs["score"].ravel().tolist() == pytest.approx([expected[at]], abs=1e-6)

    assert asked(0)
    until(lambda: counted(url)["written_total"] == 1)
    with ThreadPoolExecutor(1) as pool:
        with held(folder):
            one = pool.submit(asked, 1)
            if waits:
                with pytest.raises(TimeoutError):
                    one.result(0.7)
            else:
                assert one.result(10)
            assert counted(url)["written_total"] == 1 and counted(url)["waiting_bytes"] > 0
        assert one.result(10)
    until(lambda: counted(url) == {"written_total": 2, "lost_total": 0, "waiting_bytes": 0})
    assert all(asked(at) for at in range(2, 6))
    until(lambda: counted(url)["written_total"] == 6)
    assert [json.loads(record.value)["id"] for record in records(folder)] == [f"r-{at}/0" for at in range(6)]
    assert unsynced(folder) == [0] * 6 if synced else max(unsynced(folder)) == 5
    assert host.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB; the hosts that write there have ended before it goes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("ack", ["none", "written", "synced"])
def test_a_full_disk_costs_rows_that_are_counted_and_no_answer(
    small_disk: Path,
    serve: Callable[[str], Host],  # noqa: F811
    trained: Path,
    fresh: pl.DataFrame,
    ack: str,
) -> None:
    host = serve(configured(trained, ack, f"log:{small_disk}/impressions"))
    url, _ = host.ready()
    client = host.client(url, retries=0)
    expected = load(trained / "gbdt").score(fresh)
    told: list[str] = []

    def ask(times: int) -> dict[str, int]:
        """Requests of ten rows, each answered as ever; what became of all rows so far."""
        for _ in range(times):
            at, id = len(told) % 390, f"r-{len(told)}"
            reply = client.infer("m", fresh[at : at + 10], request_id=id)
            assert reply.outputs["score"].ravel().tolist() == pytest.approx(expected[at : at + 10].tolist(), abs=1e-6)
            told.extend(f"{id}/{row}" for row in range(10))
        until(lambda: sum(counted(url)[name] for name in ("written_total", "lost_total")) == len(told))
        return counted(url)

    assert ask(3)["lost_total"] == 0
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        room = os.statvfs(small_disk)
        file.write(bytes(room.f_bavail * room.f_bsize))
    full = ask(40)
    assert full["lost_total"] > 300 and client.ready("m")
    until(lambda: bool(host.logged("impressions_lost")))
    [said] = host.logged("impressions_lost")
    assert "the disk is full" in str(said)
    ballast.unlink()
    mended = ask(5)
    assert mended["lost_total"] == full["lost_total"] and mended["written_total"] == full["written_total"] + 50
    found = [json.loads(record.value)["id"] for record in records(small_disk / "impressions")]
    assert found[:30] == told[:30] and found[-50:] == told[-50:], "what was written before and after is there"
    assert set(found) <= set(told) and len(set(found)) == len(found) >= mended["written_total"]
    assert host.stop() == 0
