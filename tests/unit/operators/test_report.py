"""Reports are whole pages, offline, and nothing in the data can become markup."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from penstock.data.schema import Column, ModelInfo, Schema
from penstock.operators.base import CheckContext
from penstock.operators.report import MAX_POINTS, Axis, ReportOutput, page, said, section_html, sections_html

EVIL = "<script>alert('x')</script>&\""


class Context:
    """As much of a `RunContext` as a report needs."""

    step = "shown"

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return frame.collect(engine="streaming")


def parsed(fragment: str) -> ElementTree.Element:
    """Fails where the markup is not well-formed."""
    return ElementTree.fromstring(f"<x>{fragment}</x>")


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "table", "title": EVIL, "columns": [EVIL, "n"], "rows": [[EVIL, 1], [None, 2.5]], "text": EVIL},
        {"kind": "line", "title": EVIL, "x_label": EVIL, "y_label": EVIL, "series": [{"x": [0], "y": [1]}]},
        {"kind": "bar", "title": EVIL, "labels": [EVIL, "b"], "values": [1.0, -2.0]},
        {"kind": EVIL, "title": EVIL},
    ],
)  # fmt: skip
def test_every_kind_of_section_is_well_formed_and_escapes_everything(section: dict[str, Any]) -> None:
    html = section_html(section)
    parsed(html)
    assert "<script" not in html and "alert" in html


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "line", "series": [{"x": [1, 2], "y": [1]}]},
        {"kind": "line"},
        {"kind": "bar", "labels": ["a"], "values": []},
        {"kind": "table", "columns": ["a", "b"], "rows": [[1]]},
        {"kind": "line", "series": [{"x": ["a"], "y": [1]}]},
    ],
)
def test_a_section_that_cannot_be_drawn_says_so_and_spoils_nothing(section: dict[str, Any]) -> None:
    html = sections_html([section, {"kind": "table", "title": "fine", "columns": ["a"], "rows": [[1]]}])
    assert "cannot be drawn" in html and "fine" in html


def test_what_is_not_a_number_is_left_out_of_plots() -> None:
    series = {"name": "s", "x": [0, 1, 2, None, 4], "y": [0.0, math.nan, math.inf, 1.0, 1.0]}
    html = section_html({"kind": "line", "series": [series]})
    (points,) = re.findall(r'points="([^"]*)"', html)
    assert len(points.split()) == 2 and "nan" not in html and "inf" not in html.replace("info", "")
    assert "no points" in section_html({"kind": "line", "series": [{"x": [], "y": []}]})
    assert "no values" in section_html({"kind": "bar", "labels": ["a"], "values": [None]})


def test_long_lines_are_thinned_but_keep_their_ends() -> None:
    xs = list(range(100_000))
    html = section_html({"kind": "line", "series": [{"x": xs, "y": xs}]})
    (points,) = re.findall(r'points="([^"]*)"', html)
    assert len(points.split()) == MAX_POINTS and len(html) < 30_000
    whole = section_html({"kind": "line", "series": [{"x": [0, 99_999], "y": [0, 99_999]}]})
    ends = re.findall(r'points="([^"]*)"', whole)[0].split()
    assert [points.split()[0], points.split()[-1]] == ends


def test_axes_have_round_ticks_that_hold_every_value() -> None:
    for values in ([0.0, 1.0], [3.0, 3.0], [0.0, 0.0], [-7.3, 12.1], [1e-9, 2e-9], [0.761, 0.779], [1e12, 5e12]):
        axis = Axis(values, 0.0, 100.0)
        assert axis.low <= min(values) and max(values) <= axis.high and 2 <= len(axis.ticks) <= 8
        assert axis.at(axis.low) == pytest.approx(0.0) and axis.at(axis.high) == pytest.approx(100.0)


def test_values_read_like_a_persons() -> None:
    values = [None, 1234567, 0.761204123, 3.0, True, float("nan"), "x"]
    assert [said(v) for v in values] == ["–", "1,234,567", "0.7612", "3", "true", "nan", "x"]


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    html = page("t", sections_html([{"kind": "bar", "labels": ["a"], "values": [1]}]))
    assert "<script" not in html and "default-src 'none'" in html
    assert re.findall(r'(?:src|href)="', html) == []


def test_the_output_writes_one_page_with_counts_and_the_first_rows(tmp_path: Path) -> None:
    frame = pl.DataFrame({"city": [EVIL, None, "c"], "n": [1, 2, None], "tags": [["a"], [], None]}).lazy()
    output = ReportOutput.model_validate({"from": "t", "path": "t.html", "rows": 2, "title": "Cities"})
    target = tmp_path / "t.html"
    output.sink(frame, target, Context())  # type: ignore[arg-type]
    html = target.read_text()
    assert "<h1>Cities</h1>" in html and "3 rows, 3 columns" in html and "the first 2 of 3 rows" in html
    assert "<script" not in html and not output.folder()


def test_an_empty_frame_is_a_page_too(tmp_path: Path) -> None:
    frame = pl.LazyFrame(schema={"a": pl.Int64, "b": pl.String})
    ReportOutput.model_validate({"from": "t"}).sink(frame, tmp_path / "t.html", Context())  # type: ignore[arg-type]
    assert "0 rows, 2 columns" in (tmp_path / "t.html").read_text()


def test_a_model_is_refused_at_check() -> None:
    output = ReportOutput.model_validate({"from": "m"})
    assert output.check({"m": ModelInfo()}, CheckContext()).failed
    assert not output.check({"m": Schema((Column("a"),))}, CheckContext()).failed
