"""Versions between registries: signed, verified before anything is written, and nothing but plain files."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.registry import Cache, Registry
from penstock.registry.comparison import diff, diff_text

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_REGISTRY_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "other", cache=Cache(tmp_path / "other cache")) as opened:
        yield opened


@pytest.fixture
def exported(registry: Registry, bundle: Make, tmp_path: Path) -> Path:
    registry.push(bundle("one"), "ctr", tags={"team": "ads"}, notes="the first")
    registry.export("ctr/1", tmp_path / "ctr.tar")
    return tmp_path / "ctr.tar"


def rewritten(archive: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]) -> Path:
    """The archive with each member changed, or left out (None)."""
    target = archive.with_name("changed.tar")
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            source = old.extractfile(member)
            assert source is not None
            made = change(member, source.read())
            if made is not None:
                made[0].size = len(made[1]) if made[0].isreg() else 0
                new.addfile(made[0], io.BytesIO(made[1]))
    return target


def test_a_version_travels_whole_and_says_where_it_came_from(exported: Path, other: Registry) -> None:
    version = other.import_(exported, aliases=("live",))
    assert (version.uri, version.tags, version.notes) == ("models:/ctr/1", {"team": "ads"}, "the first")
    assert (other.fetch("models:/ctr@live") / "trees.txt").read_text() == "one"
    came = version.lineage["imported"]
    assert (came["name"], came["version"], came["digest"]) == ("ctr", 1, version.digest)
    assert other.import_(exported, "ctr_eu").uri == "models:/ctr_eu/1"


def test_the_own_key_is_made_once_and_is_for_oneself_alone(exported: Path, keys: Path, registry: Registry) -> None:
    before = (keys / "own.key").read_bytes()
    registry.export("ctr/1", exported.with_name("again.tar"))
    assert (keys / "own.key").read_bytes() == before
    assert os.stat(keys / "own.key").st_mode & 0o077 == 0
    assert {p.name for p in keys.iterdir()} == {"own.key", "own.pub"}


def test_only_keys_that_are_trusted_here_vouch_for_an_archive(
    exported: Path, other: Registry, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_REGISTRY_KEYS", str(tmp_path / "their keys"))
    with pytest.raises(PenstockError, match="REG012 no key is trusted here yet"):
        other.import_(exported)
    assert other.import_(exported, key=keys / "own.pub").number == 1
    with pytest.raises(PenstockError, match="REG011"):
        other.import_(exported, key=exported)


def test_a_changed_byte_of_a_file_or_of_the_list_is_seen(exported: Path, other: Registry) -> None:
    with pytest.raises(PenstockError, match=r"REG013 'trees.txt' is not the file that was signed"):
        other.import_(rewritten(exported, lambda m, c: (m, b"two" if m.name.endswith("trees.txt") else c)))
    with pytest.raises(PenstockError, match="REG012"):
        other.import_(rewritten(exported, lambda m, c: (m, c.replace(b"the first", b"the worst"))))
    assert not (other.database.file and other.database.file.exists()), "nothing was made"


def test_an_archive_that_lacks_something_is_not_whole(exported: Path, other: Registry, tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match=r"REG013 the archive lacks 'trees.txt'"):
        other.import_(rewritten(exported, lambda m, c: None if m.name.endswith("trees.txt") else (m, c)))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(exported.read_bytes()[:2600])
    with pytest.raises(PenstockError, match="REG013"):
        other.import_(cut)
    cut.write_bytes(b"no tar at all")
    with pytest.raises(PenstockError, match="REG013"):
        other.import_(cut)
    with pytest.raises(PenstockError, match="DATA012"):
        other.import_(tmp_path / "nowhere.tar")


@pytest.mark.parametrize(
    ("name", "kind", "linked", "said"),
    [
        ("files/x", tarfile.SYMTYPE, "/etc/passwd", "no plain file"),
        ("files/x", tarfile.LNKTYPE, "files/trees.txt", "no plain file"),
        ("files/x", tarfile.DIRTYPE, "", "no plain file"),
        ("files/x", tarfile.FIFOTYPE, "", "no plain file"),
        ("/etc/x", tarfile.REGTYPE, "", "a path outside it"),
        ("files/../../x", tarfile.REGTYPE, "", "a path outside it"),
        ("files/extra", tarfile.REGTYPE, "", "which its list lacks"),
    ],
)
def test_links_paths_and_strangers_are_refused(
    exported: Path, other: Registry, name: str, kind: bytes, linked: str, said: str
) -> None:
    with tarfile.open(exported, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, linked
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(PenstockError, match=f"REG014 .*{said}"):
        other.import_(exported)


def test_a_bomb_is_refused_by_its_size_before_it_is_written(exported: Path, other: Registry) -> None:
    big = rewritten(exported, lambda m, c: (m, b"0" * 1_000_000 if m.name.endswith("trees.txt") else c))
    with pytest.raises(PenstockError, match=r"REG013 'trees.txt' has 1,000,000 bytes, not 3"):
        other.import_(big)


def test_two_versions_side_by_side(registry: Registry, bundle: Make) -> None:
    wide = {"inputs": [{"name": "age", "type": "int64"}, {"name": "city", "type": "string"}], "outputs": []}
    old = registry.push(bundle("one"), "ctr")
    new = registry.push(bundle("two", metrics={"auc": 0.8, "ece": 0.1}, signature=wide, plan="p"), "ctr")
    found = diff(old, new)
    assert found["metrics"]["auc"] == {"from": 0.75, "to": 0.8, "change": pytest.approx(0.05)}
    assert found["inputs"] == {
        "added": ["city"],
        "removed": [],
        "changed": [{"name": "age", "from": "double", "to": "int64"}],
    }
    assert (found["outputs"]["removed"], found["compatible"], found["plan"]["same"]) == (["score"], False, False)
    assert "NOT compatible" in diff_text(found) and "city" in diff_text(found)
    assert diff(old, old)["compatible"] and diff(old, old)["same_bundle"]
