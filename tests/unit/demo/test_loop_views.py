"""What is shown of the loop: lines, a drawing, a page; all from the same points."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from penstock.demo.figures import ENOUGH, JUDGED, Figures, Measured
from penstock.demo.loop_report import report
from penstock.demo.story import Looped
from penstock.demo.terminal import LiveView, PlainView, view

SECONDS = 40


@pytest.fixture(scope="module")
def measured() -> Measured:
    """Forty seconds: the frozen model is worth nothing after twenty, the loop is as good as before."""
    found, rng = Measured(), np.random.default_rng(5)
    for second in range(SECONDS):
        if second == SECONDS // 2:
            found.changed_s = float(second)
        chance = rng.uniform(0, 1, 500)
        clicked = (rng.random(500) < chance).astype(float)
        frozen = chance if second < SECONDS // 2 else rng.random(500)
        found.page(float(second), clicked, loop=chance * 0.9, frozen=frozen, best=chance)
        found.clicked += int(clicked.sum())
        found.covered([(float(second), 0.1 * (second % 5 + 1))])
        found.point(second + 0.5, 100 + second, 2 * second, second, (1, second + 1))
    return found


@pytest.fixture(scope="module")
def figures(measured: Measured) -> Figures:
    counts = dict.fromkeys(("impressions", "impressions_joined"), measured.shown)
    counts |= dict.fromkeys(("clicks", "clicks_joined"), measured.clicked)
    counts |= dict.fromkeys(("samples", "learnt"), measured.events) | {"quarantined": 0, "deltas": 40}
    return measured.figures(float(SECONDS), counts)


def test_phases_and_points_say_who_was_how_good_when(measured: Measured, figures: Figures) -> None:
    before, first, last = figures.phases
    assert (before.impressions, first.impressions, last.impressions) == (10_000, 2_000, 2_000)
    for phase in figures.phases:
        assert phase.auc["loop"] == phase.auc["best"] and phase.auc["best"] > 0.8  # type: ignore[operator]
    assert before.auc["frozen"] == before.auc["best"] and last.auc["frozen"] == pytest.approx(0.5, abs=0.04)
    early = [point for point in figures.points if point.at_s * 500 < ENOUGH - 500]
    assert early and all(value is None for point in early for value in point.auc.values())
    assert figures.last.auc["frozen"] < 0.6 < figures.last.auc["loop"]  # type: ignore[operator]
    assert figures.last.events_per_s == pytest.approx(500, rel=0.3)
    assert (figures.fresh_p50, figures.fresh_most) == (pytest.approx(0.3), pytest.approx(0.5))
    assert figures.as_dict()["phases"][2]["auc"]["frozen"] == last.auc["frozen"]
    assert "points" not in figures.as_dict()


def test_the_figures_are_told_in_a_table(figures: Figures) -> None:
    told = Looped(figures, Path("out/report.html")).table()
    assert "before tastes changed" in told and "out/report.html" in told
    assert re.search(r"click to served +median 0\.30 s, 95 % within 0\.50 s, all within 0\.50 s", told)
    assert f"{figures.counts['learnt']:,} samples learnt once each, 40 deltas" in told


def test_where_stderr_is_no_terminal_there_are_lines(measured: Measured) -> None:
    out = io.StringIO()
    shown = view(SECONDS, out)
    assert isinstance(shown, PlainView)
    with shown:
        for point in measured.points:
            shown.show(measured, point)
    lines = out.getvalue().splitlines()
    assert "taste changes" in lines[0] and len(lines) == 1 + SECONDS // 5 - 1
    assert re.search(r"events/s  freshness 0\.\d\d s \(p95 .*the loop 0\.\d{4}, frozen 0\.\d{4}", lines[-1])
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_the_curves_are_drawn(measured: Measured) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, highlight=False, color_system="truecolor")
    with LiveView(SECONDS, console) as shown:
        shown.show(measured, measured.points[-1])
    said = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue())
    assert "tastes changed 20 s ago" in said and "click to served" in said and "1:40" in said
    rows = [line for line in said.splitlines() if any("⠀" < c <= "⣿" for c in line)]
    assert len(rows) >= 10
    assert max(map(len, said.splitlines())) <= 100


def test_before_there_is_anything_to_draw_it_draws_nothing(measured: Measured) -> None:
    fresh = Measured()
    point = fresh.point(0.1, 0, 0, 0, (0, 0))
    console = Console(file=io.StringIO(), width=80)
    console.print(LiveView(SECONDS, console).drawn(fresh, point))
    assert "–" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_report_needs_nothing_but_itself(figures: Figures) -> None:
    page = report(figures)
    assert not re.search(r"<script|<link|<img|src=|url\(|@import|href=", page)
    assert "prefers-color-scheme:dark" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing)
        assert "tastes change" in "".join(tree.itertext())
    space = "{http://www.w3.org/2000/svg}"
    lines = ElementTree.fromstring(drawings[0]).findall(f"{space}polyline")
    assert len(lines) == len(JUDGED)
    drawn = [point for point in figures.points if point.auc["loop"] is not None]
    assert all(len(line.attrib["points"].split()) == len(drawn) for line in lines)
    for phase in figures.phases:
        assert f"<td>{phase.name}</td>" in page and f"{phase.auc['loop']:.5g}"[:5] in page
