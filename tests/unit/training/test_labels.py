"""What counts as a label, and what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.cli.main import main
from penstock.training.faults import LabelError
from penstock.training.labels import read_labels, read_weights


@pytest.mark.parametrize("values", [[0, 1, 1], [-1, 1, 1], [False, True, True], [0.0, 1.0, 1.0]])
def test_the_three_spellings_are_one(values: list[Any]) -> None:
    assert read_labels(pa.array(values), "label").tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "code", "says"),
    [
        ([0, 1, 2], "TRAIN002", "label 'y' holds 2"),
        ([-1, 0, 1], "TRAIN002", "mixes -1, 0 and 1"),
        ([0.5, 1.0], "TRAIN002", "holds 0.5"),
        ([0, 1, None], "TRAIN003", "missing (null or NaN) in 1 of 3 rows"),
        ([0.0, 1.0, float("nan"), None], "TRAIN003", "in 2 of 4 rows"),
        ([1, 1], "TRAIN004", "all 2 rows are 1"),
        ([-1, -1], "TRAIN004", "all 2 rows are 0"),
        (["yes", "no"], "TRAIN001", "label 'y' is string"),
    ],
)
def test_other_labels_are_refused_by_name(values: list[Any], code: str, says: str) -> None:
    with pytest.raises(LabelError) as caught:
        read_labels(pa.array(values), "y")
    assert caught.value.code == code
    assert says in caught.value.message


def test_no_rows_are_refused() -> None:
    with pytest.raises(LabelError, match="there are no rows"):
        read_labels(pa.array([], pa.int64()), "y")


@pytest.mark.parametrize("values", [[1.0, -1.0], [1.0, float("nan")], [1.0, None], [0.0, 0.0], [1.0, float("inf")]])
def test_strange_weights_are_refused(values: list[Any]) -> None:
    with pytest.raises(LabelError) as caught:
        read_weights(pa.array(values), "w")
    assert caught.value.code == "TRAIN005"


@pytest.mark.parametrize("values", [[0.0, 1.0, float("nan"), None], [-1, 1, None]])
def test_the_filter_that_is_advised_leaves_rows_with_labels(values: list[Any], tmp_path: Path) -> None:
    with pytest.raises(LabelError) as caught:
        read_labels(pa.array(values), "y")
    advised = caught.value.hint.partition(": ")[2].replace("<process ", '<process name="kept" from="rows" ')
    pq.write_table(pa.table({"y": values}), tmp_path / "rows.parquet")
    (tmp_path / "flow.xml").write_text(
        '<flow xmlns="urn:penstock:flow:1" name="f"><node name="n"><input name="rows" type="parquet" '
        f'path="rows.parquet"/>{advised}<output name="o" type="parquet" from="kept" path="kept.parquet"/></node></flow>'
    )
    assert main(["flow", "run", str(tmp_path / "flow.xml")]) == 0
    kept = pq.read_table(tmp_path / "kept.parquet")["y"]
    assert read_labels(kept, "y").tolist() == [0.0, 1.0]
