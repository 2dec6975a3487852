"""Pages of docs/ that show commands and what they print do so truthfully: each is followed as it stands."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .runner import Person, shows, steps_of

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed, and the pages use it")
    person = Person(tmp_path)
    yield person
    person.close()


def test_a_model_is_released_and_then_another_one_gradually(person: Person) -> None:
    assert person.follow(DOCS / "release-a-model.md") > 15
    assert person.follow(DOCS / "gray-release.md") > 15


def test_a_model_of_scikit_learn_is_served(person: Person) -> None:
    for needed in ("sklearn", "skl2onnx", "pandas"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    assert person.follow(DOCS / "from-scikit-learn.md") > 6


def test_a_loop_is_closed_by_hand(person: Person) -> None:
    assert person.follow(DOCS / "close-the-loop.md") > 15


# --- the runner itself ---


@pytest.mark.parametrize(
    ("page", "came", "so"),
    [
        ("a ...", "a b\n", True),
        ("a ...", "b a\n", False),
        ("0.... b", "0.5 b\n", True),
        ("0.... b", "1.5 b\n", False),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nb\nc\n", False),
        ("a  b", "a b\n", True),
        ("a b", "ab\n", False),
        ("a.b", "axb\n", False),
        ("", "", True),
        ("", "something\n", False),
        ("a", "", False),
        ("...", "", True),
    ],
)
def test_what_came_is_what_the_page_shows_or_not(page: str, came: str, so: bool) -> None:
    assert shows(page, came) is so


def test_a_page_that_lies_is_told_with_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    file = "```toml\n# a.toml\nx = 1\n```\n"
    page.write_text(f"# T\n\n{file}\n```console\n$ mkdir b && cd b\n$ cat ../a.toml\n# a.toml\nx = 2\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:10: cat ../a.toml\nexit 0, and showed\n# a.toml\nx = 1"):
        Person(tmp_path).follow(page)
    page.write_text("```console\n$ false\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:2: false\nexit 1"):
        Person(tmp_path).follow(page)


def test_a_block_that_nobody_would_run_is_refused() -> None:
    with pytest.raises(AssertionError, match="neither typed nor a file"):
        list(steps_of("```python\nx = 1\n```\n"))
