"""Pages lead where they say: every relative link and every anchor, and every module that ARCHITECTURE.md names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md")),
    ROOT / "benchmarks" / "RESULTS.md", ROOT / "deploy" / "README.md",
]  # fmt: skip
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
#: Rooms of which every module has its word in ARCHITECTURE.md.
WALKED = ["streams", "online", "features/views", "training/live"]
HELD = {"__init__", "faults"}


@cache
def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


@cache
def anchors(page: Path) -> set[str]:
    """The headings as GitHub names them; one that is repeated has a number."""
    found: set[str] = set()
    for line in prose(page).splitlines():
        if re.match(r"#{1,6} ", line):
            text = LINK.sub(lambda link: link[0].partition("](")[0].lstrip("!["), line.lstrip("#").strip())
            name = re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-")
            repeated = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", known) is not None for known in found)
            found.add(f"{name}-{repeated}" if repeated else name)
    return found


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n[a](#one-two) [b](#three) [c](other.md) `[d](none.md)`\n```\n[e](none.md)\n```\n")
    assert broken(page) == ["#three", "other.md"]


# --- ARCHITECTURE.md ---


def named() -> list[tuple[str, str]]:
    """(file, what it holds or "") of everything on the walk that looks like a file or folder of ours."""
    spans = re.findall(r"`([^`\s]+\.(?:py|rs)|[^`\s]+/|crates/[\w-]+)(?:: (\w+))?`", prose(ROOT / "ARCHITECTURE.md"))
    return [(file.rstrip("/"), name) for file, name in spans]


@cache
def ours() -> list[Path]:
    """Files of the sources, as paths below the root."""
    found = [file for top in ("src", "crates", "docs") for file in (ROOT / top).rglob("*") if file.is_file()]
    return [file.relative_to(ROOT) for file in found]


def test_every_module_on_the_walk_is_there_and_holds_what_is_said() -> None:
    wrong = []
    for file, name in named():
        there = [path for path in ours() if f"/{path}".endswith(f"/{file}") or f"/{file}/" in f"/{path}"]
        defined = rf"^(?:class|def|pub struct|pub enum|pub trait|pub fn) {name}\b"
        if not there or (name and not any(re.search(defined, (ROOT / p).read_text(), re.M) for p in there)):
            wrong.append(f"{file}: {name}" if name else file)
    assert len(named()) > 100
    assert wrong == []


def test_every_module_of_the_loop_has_its_word_on_the_walk() -> None:
    said = {file.rpartition("/")[2] for file, _ in named()}
    modules = [path for room in WALKED for path in sorted((ROOT / "src/penstock" / room).glob("*.py"))]
    missing = [str(path.relative_to(ROOT)) for path in modules if path.stem not in HELD and path.name not in said]
    assert missing == [], "say in ARCHITECTURE.md, in a few words, what it is for"
