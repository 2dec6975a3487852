"""The user's broken files, through the command line: a sentence and a hint, never a traceback, never a torn output."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

FLOW = """<flow xmlns="urn:penstock:flow:1" name="t">
  <node name="n">
    <input name="rows" {input}/>
    <output name="o" from="rows" {output}/>
  </node>
</flow>
"""


def run(folder: Path, input_: str, output: str = 'type="csv" path="out.csv"') -> tuple[int, str]:
    (folder / "flow.xml").write_text(FLOW.format(input=input_, output=output))
    environment = {**os.environ, "PENSTOCK_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return done.returncode, said


def gz_cut(folder: Path) -> str:
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + os.urandom(4000).hex().encode() * 3 + b",2\n")[:-50])
    return 'type="csv" path="a.csv.gz"'


def parquet_cut(folder: Path) -> str:
    pl.DataFrame({"a": range(1000)}).write_parquet(folder / "a.parquet")
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-100])
    return 'type="parquet" path="a.parquet"'


def parquet_text(folder: Path) -> str:
    (folder / "a.parquet").write_text("a,b\n1,2\n")
    return 'type="parquet" path="a.parquet"'


def wrong_encoding(folder: Path) -> str:
    (folder / "a.csv").write_bytes("name,n\n小明,1\n".encode("gbk"))
    return 'type="csv" path="a.csv"'


def too_many_fields(folder: Path) -> str:
    (folder / "a.csv").write_text("a,b\n1,2\n3,4,5\n")
    return 'type="csv" path="a.csv"'


def empty_folder(folder: Path) -> str:
    (folder / "day").mkdir()
    (folder / "day" / "_SUCCESS").touch()
    return 'type="parquet" path="day"'


def parquet_changes(folder: Path) -> str:
    pl.DataFrame({"a": [1]}).write_parquet(folder / "1.parquet")
    pl.DataFrame({"a": ["x"]}).write_parquet(folder / "2.parquet")
    return 'type="parquet" path="*.parquet"'


def csv_changes(folder: Path) -> str:
    (folder / "1.csv").write_text("a\n1\n")
    (folder / "2.csv").write_text("a\nx\n")
    return 'type="csv" path="1.csv, 2.csv"'


def slip_in_name(folder: Path) -> str:
    (folder / "clicks.csv").write_text("a\n1\n")
    return 'type="csv" path="click.csv"'


@pytest.mark.parametrize(
    ("broken", "status", "words"),
    [
        (gz_cut, 2, ["flow.xml:3: DATA016", "a.csv.gz", "ends in the middle"]),
        (parquet_cut, 2, ["flow.xml:3: DATA004", "footer is missing or damaged", "cut short"]),
        (parquet_text, 2, ["flow.xml:3: DATA004", "it holds text"]),
        (wrong_encoding, 1, ["DATA007", "a.csv:2", "not valid in the file's encoding", "gbk"]),
        (too_many_fields, 1, ["DATA007", "a.csv:3: 3 field(s) where 2 are expected", "on_error"]),
        (empty_folder, 2, ["flow.xml:3: DATA002", "without data files"]),
        (parquet_changes, 2, ["flow.xml:3: DATA005", "int64", "string", "1.parquet", "2.parquet"]),
        (csv_changes, 1, ["DATA007", "2.csv:2", "'x' is not of type int", "a:str"]),
        (slip_in_name, 2, ["flow.xml:3: DATA001", "did you mean 'clicks.csv'?"]),
    ],
)
def test_a_broken_file_is_told_and_the_old_output_stands(
    broken: object, status: int, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("old")
    assert callable(broken)
    returned, said = run(tmp_path, broken(tmp_path))
    assert returned == status, said
    missing = [word for word in words if word not in said]
    assert not missing, said
    assert (tmp_path / "out.csv").read_text() == "old"
    assert not [p for p in tmp_path.iterdir() if "penstock-new" in p.name], "staging is cleaned"


def test_rejects_go_where_they_are_sent(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4,5\n6,7\n")
    returned, said = run(tmp_path, 'type="csv" path="a.csv" on_error="drop" errors="bad.csv"')
    assert returned == 0, said
    assert (tmp_path / "out.csv").read_text() == "a,b\n1,2\n6,7\n"
    assert '3,,"3 field(s) where 2 are expected"' in (tmp_path / "bad.csv").read_text().replace(
        "3 field(s) where 2 are expected", '"3 field(s) where 2 are expected"'
    )


def test_a_target_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    returned, said = run(tmp_path, 'type="csv" path="a.csv"', 'type="csv" path="/sys/out.csv"')
    assert returned in (1, 2), said
    assert "/sys/out.csv" in said and ("permission is denied" in said or "read-only" in said), said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("type_", ["parquet", "csv", "json", "orc", "libsvm"])
def test_a_disk_that_fills_up_leaves_the_old_output(type_: str, small_disk: Path, tmp_path: Path) -> None:
    rows = 60_000
    frame = pl.DataFrame({"label": [1.0] * rows, "keys": [[i * 7919, i * 104729] for i in range(rows)]})
    if type_ == "csv":
        frame = frame.with_columns(keys=pl.int_range(rows) * 7919 % 1_000_003 * 7919)
    frame.write_parquet(tmp_path / "a.parquet")
    old = small_disk / f"out.{type_}"
    old.write_text("old")
    compression = 'compression="none"'
    returned, said = run(tmp_path, 'type="parquet" path="a.parquet"', f'type="{type_}" path="{old}" {compression}')
    assert returned == 1, said
    assert "no space left" in said.lower() or "disk is full" in said, said
    assert old.read_text() == "old"
    assert [p.name for p in small_disk.iterdir()] == [old.name]
