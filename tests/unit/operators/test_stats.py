"""What `stats` promises: each figure against numpy, scikit-learn or a count by hand."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score, roc_auc_score

from penstock.errors import DataError
from penstock.operators.report import section_html
from penstock.operators.stats import Stats

from .conftest import Apply, applied, faults


def stats(**attrs: Any) -> Stats:
    return Stats.model_validate({"from": "a", **attrs})


FRAME = pl.DataFrame(
    {
        "f": [1.0, math.nan, None, 3.0, 10.0],
        "s": ["é", "a", "a", None, ""],
        "b": [True, False, True, True, None],
        "d": [date(2026, 1, 2), date(2026, 1, 1), None, None, None],
        "l": [[1], [], None, [2], [3]],
        "n": [None] * 5,
    }
)


def rows(made: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["column"]: row for row in made.iter_rows(named=True)}


def test_each_column_is_described_by_a_row(apply: Apply) -> None:
    made = rows(apply(stats(), a=FRAME).frame)
    assert list(made) == ["f", "s", "b", "d", "l", "n"]
    f = made["f"]
    assert (f["type"], f["rows"], f["nulls"], f["nans"], f["distinct"]) == ("double", 5, 1, 1, 4)
    values = [1.0, 3.0, 10.0]
    assert f["mean"] == np.mean(values) and f["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-14)
    assert (f["min"], f["max"]) == (1.0, 10.0)
    for name, at in {"p01": 1, "p25": 25, "p50": 50, "p75": 75, "p99": 99}.items():
        assert f[name] == pytest.approx(np.percentile(values, at), rel=1e-14)
    s = made["s"]
    assert (s["distinct"], s["lowest"], s["highest"], s["mean"]) == (3, "", "é", None)
    assert json.loads(s["top"]) == [["a", 2], ["", 1], ["é", 1]]
    assert (made["b"]["mean"], made["b"]["distinct"]) == (0.75, 2)
    assert (made["d"]["lowest"], made["d"]["highest"]) == ("2026-01-01", "2026-01-02")
    assert (made["l"]["rows"], made["l"]["nulls"], made["l"]["distinct"]) == (5, 1, None)
    assert (made["n"]["nulls"], made["n"]["distinct"], made["n"]["min"], made["n"]["top"]) == (5, 0, None, "[]")


def test_the_report_shows_the_table(apply: Apply) -> None:
    [section] = apply(stats(columns="f s", top=1), a=FRAME).context.sections
    assert section["kind"] == "table" and [row[0] for row in section["rows"]] == ["f", "s"]
    json.dumps(section)


def test_the_report_ranks_columns_by_what_they_say(apply: Apply) -> None:
    frame = pl.DataFrame({"noise": [1, 2, 1, 2], "signal": [1, 1, 2, 2], "label": [0, 0, 1, 1]})
    _, bars = apply(stats(label="label"), a=frame).context.sections
    assert bars["kind"] == "bar" and bars["labels"] == ["signal", "noise"]
    assert "signal" in section_html(bars)


def test_a_frame_without_rows_has_rows_of_nothing(apply: Apply) -> None:
    made = rows(apply(stats(label="b"), a=FRAME.clear()).frame)
    assert made["f"]["rows"] == 0 and made["f"]["mean"] is None and made["f"]["auc"] is None


def test_a_label_that_is_not_binary_is_refused_by_name(apply: Apply) -> None:
    with pytest.raises(DataError, match=r"label 'f' holds 0.0, 2.0, and must hold 0 and 1"):
        apply(stats(label="f"), a=pl.DataFrame({"f": [0.0, 2.0], "x": [1, 2]}))
    assert faults(stats(label="s"), a=FRAME) == ["OPER111 label: 's' is string, not 0/1, -1/1 or bool"]
    assert faults(stats(label="lable", columns="g"), a=FRAME) == [
        "OPER101 columns: there is no column 'g'",
        "OPER101 label: there is no column 'lable'",
    ]


def test_iv_and_mutual_information_by_hand(apply: Apply) -> None:
    frame = pl.DataFrame({"s": ["x"] * 4 + ["y"] * 4 + [None] * 2, "label": [1, 1, 1, 0, 1, 0, 0, 0, 1, 0]})
    s = rows(apply(stats(label="label"), a=frame).frame)["s"]
    cells = {"x": (3, 1), "y": (1, 3), None: (1, 1)}
    positives, negatives = 5 + 1.5, 5 + 1.5
    iv = sum(
        ((p + 0.5) / positives - (n + 0.5) / negatives) * math.log((p + 0.5) / positives / ((n + 0.5) / negatives))
        for p, n in cells.values()
    )
    assert s["iv"] == pytest.approx(iv, rel=1e-12)
    assert s["mutual_information"] == pytest.approx(
        mutual_info_score(frame["s"].fill_null("null").to_list(), frame["label"].to_list()), rel=1e-9
    )
    assert s["auc"] is None


cells = st.none() | st.sampled_from([math.nan, -1.0, 0.0, 0.5, 2.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, st.sampled_from([-1, 1, None])), max_size=30))
def test_auc_and_ks_equal_their_definitions(tmp_path_factory: Any, pairs: list[Any]) -> None:
    frame = pl.DataFrame(pairs, schema={"x": pl.Float64, "y": pl.Int64}, orient="row")
    made = rows(applied(tmp_path_factory.getbasetemp(), stats(label="y"), {"a": frame}, {}).frame)["x"]
    known = [(x, y > 0) for x, y in pairs if x is not None and not math.isnan(x) and y is not None]
    if len({y for _, y in known}) < 2:
        assert made["auc"] is None and made["ks"] is None
        return
    assert made["auc"] == pytest.approx(roc_auc_score([y for _, y in known], [x for x, _ in known]), abs=1e-12)
    both = [[x for x, y in known if y is side] for side in (True, False)]
    far = max(abs(np.mean(np.array(both[0]) <= x) - np.mean(np.array(both[1]) <= x)) for x, _ in known)
    assert made["ks"] == pytest.approx(far, abs=1e-12)
