"""Every error code has a page, and every page a code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"\"((?:FLOW|EXPR|DATA|OPER|FEAT|TRAIN|RUN|REG|SERV|STRM|VIEW)\d{3})\"")


def codes_in_source() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        found.update(CODE.findall(path.read_text(encoding="utf-8")))
    return found


def pages() -> dict[str, str]:
    found = (ROOT / "docs" / "errors").glob("*.md")
    return {p.stem: p.read_text(encoding="utf-8") for p in found if p.stem != "README"}


def test_every_code_has_a_page() -> None:
    assert sorted(codes_in_source() - set(pages())) == []


def test_every_page_belongs_to_a_code() -> None:
    assert sorted(set(pages()) - codes_in_source()) == []


def test_a_page_starts_with_its_code() -> None:
    wrong = [code for code, text in pages().items() if not text.startswith(f"# {code}")]
    assert wrong == []
