"""Where a loop begins that has no checkpoint, and what cannot be a beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.training.live import settings
from penstock.training.live.run import Loop

from .conftest import append, records, rows
from .test_run import run_until

SettingsFile = Callable[..., Path]


def ran(path: Path, begin: str) -> None:
    """A loop that ends at once, if it begins."""
    loop = Loop(settings.read(path), begin=begin)
    loop.stop()
    loop.run()


@pytest.mark.parametrize("begin", ["1700000000060", "60"])
def test_a_file_says_the_place_as_the_command_does(settings_file: SettingsFile, tmp_path: Path, begin: str) -> None:
    """The command's word counts for more: in milliseconds since the epoch, or as an offset."""
    append(f"log:{tmp_path}/samples", records(rows(100, 1)))
    said = run_until(settings_file("lr", samples=f"from = '{begin}'"), 40)
    told = run_until(settings_file("lr", name="other", samples="from = 'end'"), 40, begin=begin)
    for loop in (said, told):
        assert loop.state.places["samples"].counts["samples"] == 40 and loop.state.places["samples"].next == {0: 100}


@pytest.mark.parametrize(
    ("partitions", "begin", "code", "said"),
    [
        (2, "60", "LIVE003", "offset 60 is a place in none of them all"),
        (1, "soon", "LIVE003", "from 'soon' is no time"),
        (1, "101", "STRM008", "offset 101 is beyond the end, 100"),
    ],
)
def test_a_place_that_is_none_is_refused(
    settings_file: SettingsFile, tmp_path: Path, partitions: int, begin: str, code: str, said: str
) -> None:
    append(f"log:{tmp_path}/samples?partitions={partitions}", records(rows(100, 1)))
    with pytest.raises(PenstockError, match=said) as refused:
        ran(settings_file("lr"), begin)
    assert refused.value.code == code


def test_checkpoints_say_where_to_go_on_and_nobody_else(settings_file: SettingsFile, tmp_path: Path) -> None:
    append(f"log:{tmp_path}/samples", records(rows(100, 1)))
    run_until(path := settings_file("lr"), 100)
    with pytest.raises(PenstockError, match="has checkpoints, which say where to go on") as refused:
        ran(path, "start")
    assert refused.value.code == "LIVE006"
