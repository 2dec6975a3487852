"""Outputs are whole or old, whatever happens."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from penstock.data import targets
from penstock.data.leftovers import clear, leftovers
from penstock.data.paths import resolve
from penstock.data.remote import fetch
from penstock.data.stores import storing
from penstock.data.targets import Mode, Target, Written, content_hash
from penstock.errors import DataError


def target(path: Path | str, folder: bool = False, mode: Mode = "replace", run: str = "r1") -> Target:
    return Target(str(path), folder, mode, run=run, node="n", output="o")


def put(path: Path | str, files: dict[str, str] | str, mode: Mode = "replace", run: str = "r1") -> Written:
    to = target(path, isinstance(files, dict), mode, run)
    staging = to.staging()
    if isinstance(files, str):
        staging.write_text(files)
    else:
        for name, text in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(text)
    return to.commit()


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", "old")
    written = put(tmp_path / "a.csv", "new!")
    assert (tmp_path / "a.csv").read_text() == "new!"
    assert written.size_bytes == 4 and written.content_hash == content_hash(str(tmp_path / "a.csv"))
    assert everything(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_swapped_whole(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(targets, "_exchange", lambda one, other: False)
    put(tmp_path / "out", {"a": "1", "k=1/b": "2"})
    put(tmp_path / "out", {"c": "3"})
    assert everything(tmp_path) == ["out/c"]


def test_the_old_stands_until_commit_and_after_abort(tmp_path: Path) -> None:
    put(tmp_path / "out", {"a": "1"})
    to = target(tmp_path / "out", folder=True)
    (to.staging() / "b").write_text("2")
    assert [Path(f.url).name for f in resolve(str(tmp_path / "out"))] == ["a"]
    assert [Path(f.url).name for f in resolve(str(tmp_path / "*"))] == ["a"], "staging must never be read as data"
    to.abort()
    assert everything(tmp_path) == ["out/a"]


def test_a_second_live_writer_is_refused_and_a_dead_ones_leavings_are_cleaned(tmp_path: Path) -> None:
    script = (
        "import os, sys; from penstock.data.targets import Target\n"
        "t = Target(sys.argv[1], True, 'replace', run='dead', node='n', output='o')\n"
        "(t.staging() / 'half').write_text('x'); print('ready', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "out"
    put(path, {"a": "1"})
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(DataError, match="another live run") as refused:
            target(path, folder=True).staging()
        assert refused.value.code == "DATA014"
        child.kill()
    put(path, {"b": "2"})
    assert everything(tmp_path) == ["out/b"]


def test_a_swap_by_two_renames_that_died_in_the_middle_is_undone(tmp_path: Path) -> None:
    put(tmp_path / "out", {"a": "1"})
    (tmp_path / "out").rename(tmp_path / ".out.penstock-old")
    to = target(tmp_path / "out", folder=True)
    to.staging()
    assert (tmp_path / "out" / "a").read_text() == "1"
    to.abort()


@pytest.mark.parametrize(("name", "mode"), [("a.csv.gz", "replace"), ("out", "replace"), ("out", "append")])
def test_what_a_killed_writer_left_is_found_and_cleared_but_not_a_live_ones(
    tmp_path: Path, name: str, mode: Mode
) -> None:
    place = tmp_path / name
    to = target(place, "." not in name, mode)
    staging = to.staging()
    file = staging / "part" if staging.is_dir() else staging
    file.write_text("half")
    assert leftovers(str(place)) == []
    assert to._lock is not None
    os.close(to._lock)  # as the kernel does when its process is killed
    [left] = leftovers(str(place))
    assert (left.path, left.size_bytes) == (staging, 4)
    again = target(place, "." not in name, mode)
    again.staging()
    assert not clear(left), "somebody writes there again"
    again.abort()
    file.parent.mkdir(exist_ok=True)
    file.write_text("half")
    assert clear(left) and everything(tmp_path) == [] and leftovers(str(place)) == []


def test_the_old_content_of_a_broken_swap_is_no_leftover_while_it_is_all_there_is(tmp_path: Path) -> None:
    put(tmp_path / "out", {"a": "1"})
    (tmp_path / "out").rename(tmp_path / ".out.penstock-old")
    assert leftovers(str(tmp_path / "out")) == []
    (tmp_path / "out").mkdir()
    [left] = leftovers(str(tmp_path / "out"))
    (tmp_path / "out").rmdir()
    assert not clear(left) and everything(tmp_path) == [".out.penstock-old/a"]


def test_append_adds_one_file_a_run_and_a_retry_replaces_its_own(tmp_path: Path) -> None:
    put(tmp_path / "out", {"part-0.csv": "1"}, "append", "r1")
    put(tmp_path / "out", {"part-0.csv": "2"}, "append", "r2")
    put(tmp_path / "out", {"part-0.csv": "3"}, "append", "r2")
    assert everything(tmp_path / "out") == ["r1-n-o.csv", "r2-n-o.csv"]
    assert (tmp_path / "out" / "r2-n-o.csv").read_text() == "3"


def test_mode_error_never_replaces(tmp_path: Path) -> None:
    put(tmp_path / "a", "1", "error")
    with pytest.raises(DataError, match="already there"):
        put(tmp_path / "a", "2", "error")
    assert (tmp_path / "a").read_text() == "1"


def test_a_folder_never_takes_the_place_of_a_file_nor_of_where_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for path, folder in (
        (tmp_path / "a", True),
        (tmp_path / "work", False),
        (tmp_path, True),
        (tmp_path / "work", True),
    ):
        with pytest.raises(DataError) as refused:
            target(path, folder).staging()
        assert refused.value.code == "DATA013"
    assert everything(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission is denied")],
)
def test_what_the_system_says_is_told_with_the_path(number: int, said: str) -> None:
    with pytest.raises(DataError, match=said) as error, storing("out/x"):
        raise OSError(number, os.strerror(number))
    assert "out/x" in error.value.message


def test_a_failed_swap_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.csv", "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="disk is full"):
        put(tmp_path / "a.csv", "new")
    assert (tmp_path / "a.csv").read_text() == "old"


@pytest.mark.parametrize("scheme", ["memory", "local"])
def test_a_remote_folder_is_what_its_listing_says(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}://{tmp_path if scheme == 'local' else '/' + tmp_path.name}/out"
    fs, path = fsspec.core.url_to_fs(url)
    put(url, {"part-0.csv": "1", "k=2/part-0.csv": "2"})
    first = [f.url for f in resolve(url)]
    assert len(first) == 2 and resolve(url)[0].partitions == (("k", "2"),)
    fs.pipe_file(f"{path}/orphan.csv", b"from a run that died")
    assert [f.url for f in resolve(url)] == first, "a file that is not listed is not live"
    written = put(url, {"part-0.csv": "3"})
    [live] = resolve(url)
    assert live.url not in first and fs.cat_file(fs._strip_protocol(live.url)) == b"3"
    assert written.content_hash == content_hash(url)
    assert len(fs.find(path)) == 2, "old files and orphans are gone, the listing remains"
    put(url, {"part-0.csv": "4"}, "append", "r2")
    assert len(resolve(url)) == 2
    assert (fetch(url, tmp_path / "copy") / "part-0.csv").read_text() == "3"


def test_a_remote_file_is_replaced_whole(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/deep/a.csv"
    put(url, "1")
    put(url, "22")
    assert (tmp_path / "deep" / "a.csv").read_text() == "22"
    assert everything(tmp_path) == ["deep/a.csv"]
