"""What comes in, and what is written to, goes wrong: the loop goes on, or ends and goes on later; all act once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.streams import open_topic
from penstock.training.live import settings
from penstock.training.live.run import Loop

from .conftest import append, records, rows
from .test_run import run_until, weights

SettingsFile = Callable[..., Path]


def test_columns_that_come_go_or_change_their_type_in_mid_stream(settings_file: SettingsFile, tmp_path: Path) -> None:
    samples = records(rows(400, 1))
    changed = [
        *samples[:100],
        *({**sample, "more": at, "tags": ["x"]} for at, sample in enumerate(samples[100:200])),
        *({name: value for name, value in sample.items() if name != "price"} for sample in samples[200:300]),
        *({**sample, "price": {"amount": 3}} for sample in samples[300:310]),
        *samples[310:],
    ]
    append(f"log:{tmp_path}/samples", changed)
    loop = run_until(settings_file("lr", "[train]\nbatch = 10\n[watch]\ntell_s = 0.001"), 390)
    assert loop.state.places["samples"].counts == {"samples": 390, "ticks": 0, "quarantined": 10, "skipped": 0}
    assert loop.watch.alerts.counts["quarantine"] >= 1
    assert (tmp_path / "loop-bad.jsonl").read_text().count('"reason": "price') == 10


def test_a_topic_that_was_trimmed_is_gone_on_with_and_the_loss_counted_once(
    settings_file: SettingsFile, tmp_path: Path
) -> None:
    address = f"log:{tmp_path}/samples?segment=4KiB"
    append(address, records(rows(300, 1)))
    path = settings_file("lr", "[train]\nbatch = 50")
    run_until(path, 300)
    with open_topic(address) as topic:
        for part in range(6):
            append(address, records(rows(100, 2 + part), first=300 + 100 * part))
        topic.trim(0, 700)
        start = topic.start(0)
    assert 300 < start <= 700
    loop = run_until(path, 1200 - start)
    assert loop.state.gaps == start - 300 and loop.state.samples == 1200 - start
    assert loop.watch.alerts.counts == {"lost": 1}
    append(address, records(rows(50, 9), first=900))
    again = run_until(path, 1250 - start)
    assert again.state.gaps == start - 300 and again.state.places["samples"].next == {0: 950}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB for the loop's checkpoints."""
    place = tmp_path / "loop-cuts"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("left", [0, 6_000])
def test_a_disk_that_is_full_ends_the_loop_and_with_room_it_goes_on(
    settings_file: SettingsFile, tmp_path: Path, small_disk: Path, left: int
) -> None:
    """`left`: no room for a folder, or for half a cut."""
    append(f"log:{tmp_path}/samples", records(rows(2000, 1)))
    train = "[train]\nbatch = 50\nthreads = 1\ndeterministic = true\n"
    straight = run_until(settings_file("lr", train, "straight"), 2000)
    path = settings_file("lr", train)
    run_until(path, 1000)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        room = os.statvfs(small_disk)
        file.write(bytes(max(0, room.f_bavail * room.f_bsize - left)))
    full = Loop(settings.read(path))
    full.stop()
    with pytest.raises(PenstockError, match="No space left on device") as told:
        full.run()
    assert told.value.code in ("LIVE013", "TRAIN037") and told.value.exit_status == 1
    ballast.unlink()
    loop = run_until(path, 2000)
    assert loop.state.places["samples"].counts["samples"] == 2000
    assert weights(loop, tmp_path) == weights(straight, tmp_path)
