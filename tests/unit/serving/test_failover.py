"""A damaged copy of a version: it is found without a request, another version answers, the copy is fetched anew."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from penstock.registry.registry import Registry
from penstock.serving import config as configs
from penstock.serving.client import Client
from penstock.serving.host import Control

pytest.importorskip("torch")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Callable[[str], Control]]:
    started: list[Control] = []

    def start(text: str) -> Control:
        path = tmp_path / "serving.toml"
        path.write_text(f'[listen]\nhttp = "127.0.0.1:0"\ngrpc = "127.0.0.1:0"\n{text}\n[host]\ndrain_s = 0\n')
        started.append(Control(configs.read(path)))
        started[-1].apply()
        assert started[-1].report["ready"], started[-1].report
        started[-1]._look()
        return started[-1]

    yield start
    for each in started:
        each.host.drain(0, 5)


def flip_a_byte(folder: Path) -> None:
    """In the middle of the file: there are the rows."""
    path = folder / "rows.snapshot"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x10]))


def until(control: Control, holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends, (control.report, control.overrides.load())
        control._look()
        time.sleep(0.01)


def live_of(control: Control) -> str:
    """Who answers a request that names no version."""
    held = control.overrides.load().get("m")
    return held.release.live if held is not None and held.release is not None else "as the file says"


def test_a_damaged_version_gives_way_to_the_one_that_was_live_before(
    control: Callable[[str], Control], trained: Path, tmp_path: Path, fresh: pl.DataFrame
) -> None:
    shutil.copytree(trained / "wide_deep", tmp_path / "second")
    hosted = control(f'[models.m.versions]\n1 = "{trained / "wide_deep"}"\n[models.m.traffic]\n1 = 100\n')
    # A second version goes live, by the file; then its rows rot.
    text = hosted.config.path.read_text()
    hosted.config.path.write_text(
        text.replace("[models.m.traffic]\n1 = 100", f'2 = "{tmp_path / "second"}"\n[models.m.traffic]\n2 = 100')
    )
    until(hosted, lambda: hosted.report["models"]["m"].get("2", {}).get("state") == "ready")
    with Client("http://" + hosted.host.addresses[0]) as client:
        scores = client.infer("m", fresh[:50])
        assert scores.version == "2"
        flip_a_byte(tmp_path / "second")
        until(hosted, lambda: live_of(hosted) == "1")
        again = client.infer("m", fresh[:50])
        assert again.version == "1"
        assert (
            again.outputs["score"].tolist() == scores.outputs["score"].tolist()
        )  # the same model, not the damaged copy of it
    change = hosted.overrides.load()["m"].history[-1]
    assert change.who == "host" and change.what == "version 2 is damaged" and "row block" in change.why
    assert hosted.report["ready"]


def test_a_damaged_copy_of_the_registrys_is_fetched_anew_and_takes_its_place(
    own_registry: None, control: Callable[[str], Control], trained: Path, fresh: pl.DataFrame
) -> None:
    registry = Registry()
    pushed = registry.push(trained / "wide_deep", "m", aliases=["live"])
    hosted = control('[models.m.versions]\n1 = "models:/m@live"\n')
    held = registry.cache.find(pushed.digest)
    assert held is not None
    before = (held / "rows.snapshot").stat().st_ino
    flip_a_byte(held)
    # There is no other version: it goes on, failing where it must, until the sound copy is in its place.
    until(hosted, lambda: (held / "rows.snapshot").is_file() and (held / "rows.snapshot").stat().st_ino != before)
    assert live_of(hosted) == "as the file says" and hosted.report["ready"]
    with Client("http://" + hosted.host.addresses[0]) as client:
        assert len(client.infer("m", fresh).outputs["score"]) == len(fresh)


def test_what_runs_is_leased_so_that_gc_spares_it(
    own_registry: None, control: Callable[[str], Control], trained: Path
) -> None:
    registry = Registry()
    registry.push(trained / "wide_deep", "leased")
    hosted = control('[models.m.versions]\n1 = "models:/leased/1"\n')
    with registry.database.read() as db:
        leased = db.exec_driver_sql("select holder, model, number from leases").fetchall()
    mine = [(row[1], row[2]) for row in leased if str(hosted.config.path) in row[0]]
    assert mine == [("leased", 1)]
