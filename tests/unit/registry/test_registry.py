"""Versions come in numbered, immutable, whole, and go out so."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.errors import PenstockError
from penstock.registry import Cache, Registry, bundles, pushing
from penstock.registry.blobs import Blobs
from penstock.registry.faults import PushError
from penstock.registry.pushing import read_metrics
from penstock.registry.tables import version_files, versions
from penstock.registry.versions import parse

Make = Callable[..., Path]


def blob_files(registry: Registry) -> list[Path]:
    assert registry.database.file is not None
    return [p for p in (registry.database.file.parent / "blobs").rglob("*") if p.is_file()]


def test_a_pushed_bundle_comes_back_whole_under_a_number_that_stays(registry: Registry, bundle: Make) -> None:
    first = registry.push(bundle("one"), "ctr", aliases=("live",), tags={"team": "ads"}, notes="first")
    second = registry.push(bundle("two"), "ctr", aliases=("live",))
    assert (first.uri, second.uri) == ("models:/ctr/1", "models:/ctr/2")
    assert registry.resolve("models:/ctr@live").number == 2
    folder = registry.fetch("models:/ctr/1")
    assert (folder / "trees.txt").read_text() == "one" and (folder / "plan" / "plan.json").read_text() == "{}"
    bundles.check_files(folder, bundles.read_manifest(folder)["files"])
    assert bundles.digest_of_folder(folder) == first.digest == folder.name
    again = registry.resolve("models:/ctr/1")
    assert (again.tags, again.notes, again.metrics) == ({"team": "ads"}, "first", {"auc": 0.75})
    assert again.lineage == {"run": "r1", "flow": "ctr"}


def test_equal_content_is_stored_once(registry: Registry, bundle: Make) -> None:
    registry.push(bundle("same"), "a")
    before = len(blob_files(registry))
    registry.push(bundle("same"), "b")
    assert len(blob_files(registry)) == before


def test_only_what_the_manifest_lists_is_taken(registry: Registry, bundle: Make) -> None:
    folder = bundle()
    (folder / "secrets.txt").write_text("token")
    assert "secrets.txt" not in registry.push(folder, "ctr").files


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "../up"])
def test_a_bad_name_is_refused_before_anything_is_made(registry: Registry, bundle: Make, name: str) -> None:
    with pytest.raises(PenstockError, match="REG001"):
        registry.push(bundle(), name)
    assert registry.database.file is not None and not registry.database.file.exists()


@pytest.mark.parametrize(
    "text", ["models:/ctr", "models:/ctr@", "models:/ctr/0", "models:/ctr/1/2", "models:/ctr/x", "a"]
)
def test_a_name_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(PenstockError, match="REG001"):
        parse(text)


def test_unknown_names_are_told_with_the_nearest_known(registry: Registry, bundle: Make) -> None:
    registry.push(bundle(), "ctr", aliases=("live",))
    with pytest.raises(PenstockError, match=r"REG002 .*\n  hint: did you mean 'ctr'"):
        registry.resolve("models:/crt@live")
    with pytest.raises(PenstockError, match=r"REG003 .*\n  hint: did you mean 'live'"):
        registry.resolve("models:/ctr@life")
    with pytest.raises(PenstockError, match=r"REG003 .*\n  hint: its newest is 1"):
        registry.resolve("models:/ctr/7")


def test_reading_never_makes_a_registry(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match="REG005 there is no model registry"):
        Registry(tmp_path / "nowhere").resolve("models:/ctr@live")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("url", ["mysql://u:pw@h/d", "http://x", "sqlite://"])
def test_other_addresses_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(PenstockError, match="REG004") as caught:
        Registry(url)
    assert "pw@" not in str(caught.value)


# --- crashes, crowds, full disks ---

_KILLED = """
import os, signal, sys
from penstock.registry import Registry, pushing
real = pushing._next_number
def killed(*args):
    os.kill(os.getpid(), signal.SIGKILL)
pushing._next_number = killed
Registry(sys.argv[1]).push(sys.argv[2], "ctr", aliases=("live",))
"""


def test_a_push_killed_between_blobs_and_rows_leaves_nothing_to_be_seen(
    registry: Registry, bundle: Make, tmp_path: Path
) -> None:
    registry.push(bundle("one"), "ctr", aliases=("live",))
    two = bundle("two")
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "registry"), str(two)])
    assert killed.returncode == -signal.SIGKILL
    assert len(blob_files(registry)) == 5, "its blobs are there (two of three files are new)"
    assert [v.number for v in registry.list_versions("ctr")] == [1]
    assert registry.resolve("models:/ctr@live").number == 1
    assert registry.push(two, "ctr").number == 2, "numbers have no gap"
    assert (registry.fetch("models:/ctr/2") / "trees.txt").read_text() == "two"


_MANY = """
import sys
from penstock.registry import Registry
with Registry(sys.argv[1]) as opened:
    for _ in range(8):
        opened.push(sys.argv[2], "ctr")
"""


def test_pushes_of_several_processes_get_consecutive_numbers(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", _MANY, str(tmp_path / "registry"), str(bundle(f"of {i}"))] for i in range(3)]
    crowd = [subprocess.Popen(command) for command in commands]
    assert [each.wait(60) for each in crowd] == [0, 0, 0]
    found = registry.list_versions("ctr")
    assert [v.number for v in found] == list(range(24, 0, -1))
    assert {registry.fetch(v.uri).name for v in found} == {v.digest for v in found}


def test_a_full_disk_leaves_no_half_blob_and_no_version(registry: Registry, bundle: Make) -> None:
    registry.push(bundle("small"), "ctr")
    big = bundle("x" * 3_000_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
        with pytest.raises(PenstockError, match=r"DATA012 cannot write .*blobs: it is too big"):
            registry.push(big, "ctr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [v.number for v in registry.list_versions()] == [1]
    assert [p for p in blob_files(registry) if p.name.startswith(".") or p.stat().st_size > 1000] == []
    assert registry.push(big, "ctr").number == 2


def test_a_push_that_slept_through_its_lease_is_refused(
    registry: Registry, bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(bundle("one"), "ctr")
    monkeypatch.setattr(pushing, "UPLOAD_S", -1.0)
    real = Blobs.put

    def slow(self: Blobs, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        registry.gc(dry_run=False)

    monkeypatch.setattr(Blobs, "put", slow)
    with pytest.raises(PenstockError, match="REG007 this push slept"):
        registry.push(bundle("two"), "ctr")
    assert [v.number for v in registry.list_versions()] == [1]


# --- damage ---


def test_a_bundle_that_is_not_whole_is_not_pushed(registry: Registry, bundle: Make) -> None:
    folder = bundle()
    (folder / "trees.txt").write_text("other")
    with pytest.raises(PenstockError, match="TRAIN012"):
        registry.push(folder, "ctr")
    (folder / "trees.txt").unlink()
    with pytest.raises(PenstockError, match="TRAIN010"):
        registry.push(folder, "ctr")


def test_a_damaged_or_missing_blob_is_named_and_never_handed_out(registry: Registry, bundle: Make) -> None:
    version = registry.push(bundle("one"), "ctr")
    sha256 = version.files["trees.txt"][0]
    [blob] = [p for p in blob_files(registry) if p.parent.name + p.name == sha256]
    blob.chmod(0o644)
    blob.write_text("two")
    with pytest.raises(PenstockError, match=f"REG006 the blob {sha256[:12]} .* is damaged"):
        registry.fetch(version)
    blob.unlink()
    with pytest.raises(PenstockError, match="REG006 a file of the version cannot be fetched"):
        registry.fetch(version)
    assert not any((registry.cache.folder / "bundles").iterdir())
    registry.push(bundle("one"), "ctr")  # the same content heals it
    assert (registry.fetch(version) / "trees.txt").read_text() == "one"


def test_a_bundle_of_an_older_format_is_migrated_on_the_way_in(registry: Registry, bundle: Make) -> None:
    folder = bundle("old", format_version=1)
    manifest = bundles.read_manifest(folder)
    assert (manifest["format_version"], manifest["warmup"]) == (bundles.FORMAT_VERSION, None)
    fetched = registry.fetch(registry.push(folder, "ctr"))
    assert bundles.format_of(fetched) == bundles.FORMAT_VERSION
    assert (fetched / "trees.txt").read_text() == "old"
    assert bundles.format_of(folder) == 1, "what was given is not touched"


def test_a_bundle_of_a_newer_format_is_refused(registry: Registry, bundle: Make) -> None:
    with pytest.raises(PenstockError, match="TRAIN011"):
        registry.push(bundle(format_version=bundles.FORMAT_VERSION + 1), "ctr")


def test_blobs_live_under_any_url(tmp_path: Path, bundle: Make) -> None:
    with Registry(tmp_path / "r", blobs="memory://models", cache=Cache(tmp_path / "cache")) as opened:
        version = opened.push(bundle("far"), "ctr")
        assert (opened.fetch(version) / "trees.txt").read_text() == "far"
    with Registry(tmp_path / "r", blobs="memory://elsewhere") as again:
        assert again.blobs.url == "memory://models", "the first host decided for all"


# --- schemas ---


def _old_registry(folder: Path) -> None:
    """A registry as the first schema had it, with one version."""
    from alembic import command
    from alembic.config import Config

    folder.mkdir()
    engine = sa.create_engine(f"sqlite:///{folder / 'registry.sqlite'}")
    config = Config()
    config.set_main_option("script_location", "penstock.registry:migrations")
    config.set_main_option("path_separator", "os")
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "0001")
        db.execute(sa.text("INSERT INTO models VALUES ('ctr', 1, 0)"))
        manifest = '{"format_version": 1, "files": {}, "algorithm": "lr"}'
        db.execute(
            sa.text(
                "INSERT INTO versions (model, number, digest, manifest, size_bytes, metrics, lineage, pushed_at,"
                " pushed_by, tags, notes) VALUES ('ctr', 1, 'd', :manifest, 0, '{}', '{}', 0, 'ann', '{}', '')"
            ),
            {"manifest": manifest},
        )
    engine.dispose()


def test_an_older_schema_is_migrated_with_what_it_holds(tmp_path: Path, bundle: Make) -> None:
    _old_registry(tmp_path / "old")
    with Registry(tmp_path / "old", cache=Cache(tmp_path / "cache")) as opened:
        first = opened.resolve("models:/ctr/1")
        assert (first.manifest["algorithm"], first.manifest["format_version"], first.proof) == ("lr", 2, {})
        opened.lease("host", [first], 60)
        assert opened.push(bundle(), "ctr").number == 2


def test_a_newer_schema_is_refused(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    registry.push(bundle(), "ctr")
    with sqlite3.connect(tmp_path / "registry" / "registry.sqlite") as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    with Registry(tmp_path / "registry") as opened, pytest.raises(PenstockError, match=r"REG006 .*newer Penstock"):
        opened.resolve("models:/ctr/1")


def test_the_tables_are_those_of_the_newest_migration(registry: Registry, bundle: Make) -> None:
    from penstock.registry import tables

    registry.push(bundle(), "ctr")
    with registry.database.read() as db:
        found = sa.inspect(db)
        there = {name: {c["name"] for c in found.get_columns(name)} for name in found.get_table_names()}
    there.pop("alembic_version")
    assert there == {t.name: {c.name for c in t.columns} for t in tables.metadata.sorted_tables}
    steps = Path(tables.__file__).parent / "migrations" / "versions"
    assert max(re.match(r"(\d+)_", p.name)[1] for p in steps.glob("0*.py")) == tables.HEAD  # type: ignore[index]


def test_versions_cannot_be_changed_by_pushing_again(registry: Registry, bundle: Make) -> None:
    first = registry.push(bundle("one"), "ctr")
    registry.push(bundle("two"), "ctr")
    with registry.database.read() as db:
        rows = db.execute(sa.select(versions.c.digest).where(versions.c.number == 1)).scalars().all()
        files = db.execute(sa.select(version_files).where(version_files.c.number == 1)).all()
    assert rows == [first.digest] and len(files) == len(first.files)


def test_the_registry_may_move_with_its_folder(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    registry.push(bundle("one"), "ctr")
    registry.close()
    shutil.move(tmp_path / "registry", tmp_path / "elsewhere")
    with Registry(tmp_path / "elsewhere", cache=Cache(tmp_path / "cache2")) as moved:
        assert (moved.fetch("models:/ctr/1") / "trees.txt").read_text() == "one"


def test_the_blobs_are_read_only(registry: Registry, bundle: Make) -> None:
    registry.push(bundle(), "ctr")
    assert {oct(os.stat(p).st_mode & 0o777) for p in blob_files(registry)} == {"0o444"}


def test_metrics_of_a_flow_are_added_to_the_manifests(registry: Registry, bundle: Make, tmp_path: Path) -> None:
    place = tmp_path / "metrics.json"
    place.write_text('{"auc": 0.76, "rows": 194, "by": "user_id", "pr_auc": null}\n')
    version = registry.push(bundle("judged"), "ctr", metrics=read_metrics(place))
    own = json.loads((bundle("judged") / "manifest.json").read_text())["metrics"]
    assert registry.resolve("models:/ctr/1").metrics == version.metrics == {**own, "auc": 0.76, "rows": 194}
    for bad in ("[1]", "{", ""):
        place.write_text(bad)
        with pytest.raises(PushError, match="REG007"):
            read_metrics(place)
    with pytest.raises(PushError, match="REG007"):
        read_metrics(tmp_path / "absent.json")
