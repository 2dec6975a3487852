"""The local cache: whole bundles, bounded, alive without the registry."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.registry import Cache, Registry, Version, door

Make = Callable[..., Path]


def aged(cache: Cache, version: Version, seconds: int) -> None:
    used = cache.folder / "used" / version.digest
    os.utime(used, (used.stat().st_mtime - seconds,) * 2)


@pytest.fixture
def three(registry: Registry, bundle: Make) -> list[Version]:
    """Three versions of some 10 kB, fetched, the first one longest ago."""
    versions = [registry.push(bundle(str(n) * 10_000), "ctr") for n in range(3)]
    for age, version in zip((900, 600, 300), versions, strict=True):
        registry.fetch(version)
        aged(registry.cache, version, age)
    return versions


def there(cache: Cache) -> set[str]:
    return {p.name for p in (cache.folder / "bundles").iterdir()}


def test_what_was_used_longest_ago_leaves_first(registry: Registry, three: list[Version]) -> None:
    cache = Cache(registry.cache.folder, 23_000)
    assert cache.evict() == [three[0].digest]
    cache.find(three[1].digest)
    assert Cache(cache.folder, 12_000).evict() == [three[2].digest], "a use is remembered"
    assert there(cache) == {three[1].digest}


def test_what_is_pinned_or_held_stays(registry: Registry, three: list[Version]) -> None:
    cache = Cache(registry.cache.folder, 0)
    cache.keep(three[0].digest, True)
    held = registry.hold(three[1])
    for version in three:
        aged(cache, version, 900)
    assert cache.evict() == [three[2].digest]
    held.release()
    assert cache.evict() == [three[1].digest]
    assert there(cache) == {three[0].digest}


def test_what_a_process_let_go_may_leave(
    registry: Registry, three: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that serves one version after the other holds those that it serves, not all that it ever did."""
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(registry.database.file.parent))  # type: ignore[union-attr]
    monkeypatch.setenv("PENSTOCK_MODEL_CACHE", str(registry.cache.folder))
    served = [door.folder(version.uri) for version in three]
    with door.held(three[1].uri) as opened:
        assert opened == served[1] == door.folder(three[1].uri)
        door.let_go(but=[three[2].digest])
        for version, age in zip(three, (900, 600, 300), strict=True):
            aged(registry.cache, version, age)
        assert Cache(registry.cache.folder, 1).evict() == [three[0].digest]
    assert Cache(registry.cache.folder, 1).evict() == [three[1].digest]
    assert door.folder(three[0].uri) == served[0] and there(registry.cache) == {served[0].name, served[2].name}
    door.let_go(but=[])


def test_a_mapped_file_outlives_its_eviction(registry: Registry, three: list[Version]) -> None:
    with (registry.fetch(three[0]) / "trees.txt").open() as file:
        aged(registry.cache, three[0], 900)
        Cache(registry.cache.folder, 0).evict()
        assert file.read() == "0" * 10_000


def test_what_was_fetched_is_read_only_and_fetched_once(registry: Registry, three: list[Version]) -> None:
    folder = registry.fetch(three[0])
    before = (folder / "trees.txt").stat()
    assert before.st_mode & 0o222 == 0
    assert registry.fetch(three[0]) == folder
    assert (folder / "trees.txt").stat().st_ino == before.st_ino


def test_a_fetched_version_lives_through_the_loss_of_the_registry(
    registry: Registry, bundle: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry.push(bundle("one"), "ctr", aliases=("live",))
    folder = registry.fetch("models:/ctr@live")
    shutil.rmtree(tmp_path / "registry")
    with Registry(tmp_path / "registry", cache=registry.cache) as again, caplog.at_level(logging.WARNING):
        version = again.resolve("models:/ctr@live")
        assert (version.number, version.remembered, again.fetch(version)) == (1, True, folder)
        assert "as it was when it last answered" in caplog.text
        assert again.fetch("models:/ctr/1") == folder
        with pytest.raises(PenstockError, match="REG005"):
            again.resolve("models:/ctr@canary")
    assert not (tmp_path / "registry").exists()


def test_an_alias_that_was_taken_away_is_not_remembered(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    registry.push(bundle("one"), "ctr", aliases=("live",))
    registry.fetch("models:/ctr@live")
    registry.drop_alias("ctr", "live")
    with pytest.raises(PenstockError, match="REG003"):
        registry.resolve("models:/ctr@live")
    shutil.rmtree(tmp_path / "registry")
    with pytest.raises(PenstockError, match="REG005"):
        registry.resolve("models:/ctr@live")


def test_the_memory_of_one_registry_is_not_that_of_another(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    registry.push(bundle("one"), "ctr", aliases=("live",))
    registry.fetch("models:/ctr@live")
    with Registry(tmp_path / "other", cache=registry.cache) as other, pytest.raises(PenstockError, match="REG005"):
        other.resolve("models:/ctr@live")


def test_a_fetch_that_was_killed_is_no_bundle(registry: Registry, bundle: Make) -> None:
    version = registry.push(bundle("one"), "ctr")
    half = registry.cache.folder / "bundles" / ".staged-0"
    half.mkdir(parents=True)
    (half / "trees.txt").write_text("o")
    os.utime(half, (0, 0))
    assert (registry.fetch(version) / "trees.txt").read_text() == "one"
    assert there(registry.cache) == {version.digest}, "and it is cleared away after a day"
