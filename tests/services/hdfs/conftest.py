"""The real HDFS as a fixture."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .service import Hdfs, NotInstalled, installed, running


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A running HDFS; skipped with the reason where it cannot be installed, which fails in CI."""
    try:
        installed()
    except NotInstalled as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with running(tmp_path_factory.mktemp("hdfs")) as started:
        yield started


@pytest.fixture(autouse=True)
def its_log(request: pytest.FixtureRequest, hdfs: Hdfs) -> Iterator[None]:
    """What HDFS said during a test, shown where the test fails."""
    start = hdfs.log.stat().st_size
    yield
    with hdfs.log.open("rb") as log:
        log.seek(start)
        print(f"HDFS's own log:\n{log.read().decode(errors='replace')[-4000:]}")
