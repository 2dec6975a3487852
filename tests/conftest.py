"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .webhooks import Webhook

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real data sets; the test is skipped, with the reason, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not here: {SHARED} does not exist")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def no_registry_of_ones_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`models:/` names mean nothing but what a test pushes, and nothing is left in the home folder."""
    place = tmp_path_factory.mktemp("models")
    names = {"PENSTOCK_REGISTRY": "registry", "PENSTOCK_MODEL_CACHE": "cache", "PENSTOCK_REGISTRY_KEYS": "keys"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(place / folder) for name, folder in names.items()})
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test pushes is seen by no other."""
    for name, folder in {"HOME": "home", "REGISTRY": "registry", "MODEL_CACHE": "cache"}.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", str(tmp_path / folder))


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as heard:
        yield heard


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak tests run only when asked for by `-m soak`."""
    if "soak" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="a soak test: run `make soak`")
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(skip)
