"""Bad flows and exactly what is said about them: tests/golden/flow/NAME.xml and NAME.expected.

To renew the expectations after a change of words: PENSTOCK_GOLDEN=write pytest tests/unit/flow/test_golden.py, then
read the diff as a user would.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from penstock.flow import check_file

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "flow"
FLOWS = sorted(path.stem for path in GOLDEN.glob("*.xml"))


def said(name: str) -> str:
    text = "".join(f"{problem}\n" for problem in check_file(f"{name}.xml"))
    return text.replace(str(GOLDEN), "{dir}")


@pytest.mark.parametrize("name", FLOWS)
def test_a_bad_flow_is_told_exactly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    expected = GOLDEN / f"{name}.expected"
    found = said(name)
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


def test_there_are_at_least_forty_bad_flows() -> None:
    assert len(FLOWS) >= 40
    assert {p.stem for p in GOLDEN.glob("*.expected")} == set(FLOWS)


def test_every_expectation_is_a_problem() -> None:
    for name in FLOWS:
        text = (GOLDEN / f"{name}.expected").read_text(encoding="utf-8")
        assert re.match(rf"{name}\.xml:\d+: [A-Z]+\d{{3}} ", text), name
