"""Where a host begins that opens a version of a loop: where that stands in the chain, or with what is newer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penstock import native
from penstock.registry import Registry
from penstock.registry.bundles import read_manifest
from penstock.registry.chain import ChainHead, read, records
from penstock.streams import open_topic
from penstock.training.live.bases import Bases
from penstock.training.live.run import Loop

from .conftest import append, rows
from .conftest import records as samples_of
from .serving import Host, published, scored, until
from .test_run import run_until

SettingsFile = Callable[..., Path]
PUBLISH = "[train]\nbatch = 500\ndeterministic = true\n[publish]\ntopic = 'log:chain'\nevery_ms = 50\n"
#: A version after each batch.
VERSIONS = "[bases]\nevery_s = 0.001\n"


def first_version() -> Path:
    with Registry() as registry:
        return registry.fetch(registry.resolve("models:/ctr/1"))


def without_bases(chain: str, copy: str, begin: int) -> None:
    """The chain as it is where retention has taken the records before an offset, and what was announced. Offsets are
    the same: what is gone is of another key."""
    with open_topic(chain, create=False) as topic, open_topic(copy) as other:
        for record in records(topic, 0, 0, None):
            gone = record.offset < begin or native.ChainRecord(record.value).kind == "base"
            other.append([b"-" if gone else record.value], keys=[b"other" if gone else record.key])


@pytest.fixture
def learnt(settings_file: SettingsFile, tmp_path: Path) -> Loop:
    """A loop that has published, made versions, and gone on."""
    append(f"log:{tmp_path}/samples", samples_of(rows(1000, 1)))
    return run_until(settings_file("lr", PUBLISH + VERSIONS), 1000)


def test_a_version_goes_on_from_its_own_delta_where_no_base_is_announced_any_more(
    learnt: Loop, tmp_path: Path, models: Callable[[str], Path]
) -> None:
    version = first_version()
    said = read_manifest(version)["chain"]
    assert (said["name"], said["generation"]) == ("ctr", 1) and 0 < said["sequence"] < published(learnt)[1]
    without_bases(f"log:{tmp_path}/chain", f"log:{tmp_path}/short", said["offset"])
    host = Host(tmp_path, version, f"log:{tmp_path}/short")
    try:
        until(lambda: host.ready and host.at() == published(learnt), "it does not follow")
        probe = rows(200, 9)
        np.testing.assert_allclose(host.asked(probe)[0], scored(learnt, models("lr"), tmp_path, probe), atol=1e-6)
    finally:
        host.stop()


def test_the_newest_base_is_not_opened_beside_itself(
    learnt: Loop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Registry() as registry:
        assert len(registry.list_versions("ctr")) == 2
    host = Host(tmp_path, "models:/ctr/2")
    try:
        until(lambda: host.ready and host.at() == published(learnt), "it does not follow")
    finally:
        host.stop()
    assert "chain_base" not in capfd.readouterr().err


def test_what_a_version_says_of_another_topic_does_not_count(
    learnt: Loop, settings_file: SettingsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was carried to a place of its own: there a chain of the same name begins with it."""
    version = first_version()
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(tmp_path / "elsewhere"))
    path = settings_file("lr", PUBLISH.replace("log:chain", "log:other"), name="other", start=version)
    host = Host(tmp_path, version, f"log:{tmp_path}/other")
    try:
        loop = run_until(path, 1000)
        assert published(loop)[0] == 1, "the same generation as the version's"
        until(lambda: host.ready and host.at() == published(loop), "it does not follow")
        probe = rows(200, 9)
        np.testing.assert_allclose(host.asked(probe)[0], scored(loop, version, tmp_path, probe), atol=1e-6)
    finally:
        host.stop()


def test_the_chain_is_trimmed_behind_the_oldest_base_that_is_kept_and_a_host_that_comes_later_serves(
    settings_file: SettingsFile, tmp_path: Path, models: Callable[[str], Path]
) -> None:
    publish = PUBLISH.replace("log:chain", "log:chain?segment=4KiB").replace("500", "100")
    path = settings_file("lr", f"{publish}{VERSIONS}keep = 2\n")
    starts = [0]
    for turn in range(3):
        append(f"log:{tmp_path}/samples", samples_of(rows(1000, turn), first=1000 * turn))
        loop = run_until(path, 1000 * (turn + 1))
        oldest = Bases(tmp_path / "loop-cuts", 2).all()[0]
        with open_topic(f"log:{tmp_path}/chain") as topic:
            starts.append(topic.start(0))
            since = list(read(topic, ChainHead("ctr", *oldest.chain), offset=oldest.offset + 1))
        assert starts[-2] < starts[-1] <= oldest.offset + 1
        assert since[-1].head[1:] == published(loop), "the oldest base leads to what was published last"
    host = Host(tmp_path, models("lr"))
    try:
        until(lambda: host.ready and host.at() == published(loop), "it does not follow")
        probe = rows(200, 9)
        np.testing.assert_allclose(host.asked(probe)[0], scored(loop, models("lr"), tmp_path, probe), atol=1e-6)
    finally:
        host.stop()
