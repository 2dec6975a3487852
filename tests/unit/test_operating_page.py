"""docs/operating-the-loop.md names every metric and every alert that there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from penstock.online import metrics as joining
from penstock.training.live import telling

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating-the-loop.md").read_text(encoding="utf-8")
HOST = [ROOT / "crates/penstock-serve/src" / name for name in ("fleet/metrics.rs", "door/counters.rs")]


def in_the_code() -> set[str]:
    found = {name for file in HOST for name in re.findall(r'"(penstock_[a-z_]+)"', file.read_text(encoding="utf-8"))}
    found |= {f"{joining.PREFIX}_{name}" for name in joining.METRICS}
    return found | {f"{telling.PREFIX}_{name}" for name in telling.METRICS}


def test_every_metric_is_on_the_page_and_every_one_on_the_page_is_there() -> None:
    on_the_page = set(re.findall(r"penstock_[a-z_]+", PAGE))
    assert on_the_page == in_the_code()


def test_no_other_file_of_the_host_makes_metrics() -> None:
    others = [file for file in (ROOT / "crates/penstock-serve/src").rglob("*.rs") if file not in HOST]
    assert not [file for file in others if "# TYPE" in file.read_text(encoding="utf-8")]


def test_every_alert_has_a_line_that_says_what_to_do() -> None:
    table = PAGE.split("| alert |")[1].split("\n\n")[0]
    told = {name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    assert told == set(get_args(telling.Kind))
