"""A real PostgreSQL as a fixture: one server a session, a database of its own a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .service import NotInstalled, Postgres, installed, running


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server; skipped with the reason where it is not installed, which fails in CI."""
    try:
        installed()
    except NotInstalled as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with running() as started:
        yield started


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of a new, empty database."""
    return postgres.new_database()
