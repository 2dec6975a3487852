"""A broker that is away for a while under the whole loop: everybody waits, says so, and goes on by itself."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from ..loop.closed import Loop, Pace, Samples, Visitors, free_port
from ..loop.test_closed_loop import check_samples, drained, learnt, until
from ..streams.brokers import Broker
from ..streams.conftest import own_redis  # noqa: F401


class Watched(Loop):
    """A loop whose join tells its metrics. `patience`: how the join's topics wait for their broker (`timeout`)."""

    def __init__(self, folder: Path, base: str, patience: str) -> None:
        super().__init__(folder, base=base, pace=Pace(checkpoint_s=0.5))
        self.patience, self.metrics = patience, f"127.0.0.1:{free_port()}"

    def _write_files(self) -> None:
        super()._write_files()
        path = self.folder / "join.toml"
        said = path.read_text()
        for address in (self.feedback, self.samples) if self.patience else ():
            said = said.replace(f'"{address}"', f'"{address}?timeout={self.patience}"')
        path.write_text(f'metrics = "{self.metrics}"\n{said}')

    def up(self) -> int:
        """The join's `penstock_join_up`."""
        text = urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10).read().decode()
        found = re.search(r"^penstock_join_up (\d)$", text, re.MULTILINE)
        assert found, text
        return int(found[1])


@pytest.mark.parametrize(
    ("away_s", "patience"), [(3.0, "1s"), pytest.param(60.0, "", marks=pytest.mark.soak)]
)  # fmt: skip
def test_a_broker_that_is_away_is_waited_for_and_nothing_is_lost_or_doubled(
    own_redis: Broker,  # noqa: F811
    tmp_path: Path,
    away_s: float,
    patience: str,
) -> None:
    with Watched(tmp_path / "loop", own_redis.address, patience) as loop:
        visitors = Visitors(loop.port, loop.feedback, 200.0)
        visitors.start()
        try:
            until(lambda: loop.up() == 1 and learnt(loop.folder / "cuts") > 0, "it does not learn", loop)
            own_redis.kill()
            back = time.monotonic() + away_s
            until(lambda: loop.up() == 0, "the join does not say that it waits", loop, away_s)
            while time.monotonic() < back:
                assert loop.up() == 0 and loop.join.alive() and loop.trainer.alive()
                time.sleep(0.1)
            own_redis.start()
            until(lambda: loop.up() == 1, "the join does not say that it goes on", loop)
            time.sleep(1.0)
        finally:
            told = visitors.stop()
        assert re.search(r"^waiting: .*redis://", loop.join.said(), re.MULTILINE), "its log says what it waits for"
        samples = Samples(loop.samples)
        done = drained(loop, told, samples)
        check_samples(samples, told)
        assert done["generation"] == 1 and not told.failed and len(told.clicks) > 100
