"""The dashboard and the docs name metrics that the host has, and the docs name them all."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAME = re.compile(r"\bpenstock_[a-z_]+")
SOURCES = ("crates/penstock-serve/src/fleet/metrics.rs", "crates/penstock-serve/src/door/counters.rs")


def told_by_the_host() -> set[str]:
    text = "".join((ROOT / source).read_text(encoding="utf-8") for source in SOURCES)
    return set(re.findall(r"\"(penstock_[a-z_]+)\"", text))


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads((ROOT / "deploy/grafana/serving.json").read_text(encoding="utf-8"))
    asked = {name for panel in board["panels"] for each in panel["targets"] for name in NAME.findall(each["expr"])}
    known = told_by_the_host()
    assert asked
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} - known == set()


def test_the_docs_name_every_metric_of_the_fleet() -> None:
    docs = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    fleet = {name for name in told_by_the_host() if not name.startswith("penstock_door_")}
    assert sorted(fleet - set(NAME.findall(docs))) == []
