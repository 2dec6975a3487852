"""What a path names: files, folders, globs, several; and what it never names."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.data.paths import resolve, split_locations
from penstock.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "logs/b.csv",
        "logs/a.csv",
        "logs/_SUCCESS",
        "logs/.a.csv.crc",
        "logs/dt=2026-01-02/c.csv",
        "logs/_temporary/x.csv",
        "my file.csv",
        "empty/_SUCCESS",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    return tmp_path


def names(tree: Path, *patterns: str, sep: str = ", ", **kwargs: str) -> list[str]:
    found = resolve(sep.join(str(tree / p) for p in patterns), **kwargs)  # type: ignore[arg-type]
    return [Path(f.url).relative_to(tree).as_posix() for f in found]


def test_a_folder_is_its_data_files_sorted(tree: Path) -> None:
    assert names(tree, "logs") == ["logs/a.csv", "logs/b.csv", "logs/dt=2026-01-02/c.csv"]


def test_globs_and_several_paths(tree: Path) -> None:
    assert names(tree, "logs/*.csv") == ["logs/a.csv", "logs/b.csv"]
    assert names(tree, "logs/b.csv", "logs/a.csv") == ["logs/b.csv", "logs/a.csv"], "in the order given"
    assert names(tree, "logs/b.csv", "logs/a.csv", sep=" ") == ["logs/b.csv", "logs/a.csv"]
    assert names(tree, "logs/dt=*") == ["logs/dt=2026-01-02/c.csv"]
    assert names(tree, "logs/**/c.csv") == ["logs/dt=2026-01-02/c.csv"]


def test_a_name_with_a_space_is_one_path(tree: Path) -> None:
    assert names(tree, "my file.csv") == ["my file.csv"]
    assert split_locations("/no such/file.csv") == ["/no such/file.csv"]


def test_folders_named_by_value_are_columns(tree: Path) -> None:
    assert resolve(str(tree / "logs"))[2].partitions == (("dt", "2026-01-02"),)


@pytest.mark.parametrize(
    ("pattern", "code", "hint"),
    [
        ("logs/aa.csv", "DATA001", "did you mean 'a.csv'?"),
        ("lags/a.csv", "DATA001", "did you mean 'logs'?"),
        ("empty", "DATA002", "hidden"),
        ("logs/*.parquet", "DATA003", ""),
    ],
)
def test_what_is_not_there_is_told_with_what_is(tree: Path, pattern: str, code: str, hint: str) -> None:
    with pytest.raises(DataError) as error:
        resolve(str(tree / pattern))
    assert error.value.code == code and hint in error.value.hint


def test_missing_skip_passes_over_days_that_are_not_there(tree: Path) -> None:
    assert names(tree, "logs/a.csv", "logs/z.csv", missing="skip") == ["logs/a.csv"]
    with pytest.raises(DataError, match="none of"):
        resolve(str(tree / "z"), missing="skip")


def test_relative_paths_start_at_the_base(tree: Path) -> None:
    assert len(resolve("logs/a.csv, logs/b.csv", base=tree)) == 2
