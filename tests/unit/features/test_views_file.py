"""A views file is read whole, or every problem it has is told at once with its line."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from penstock.errors import ProblemsFound
from penstock.features.views import check, read

from .views_cases import shop

WRONG = """<views xmlns="urn:penstock:views:1" nam="shop">
  <entity name="user" key="user_id" type="float"/>
  <entity name="user" key="uid"/>
  <view name="user clicks" entity="usr" ttl="soon">
    <column name="city" type="text"/>
    <aggregate name="clicks" function="count"/>
    <aggregate name="clicks" function="avg" from="price" type="float" sliding="1h" every="7m"/>
    <aggregate name="names" function="sum" from="city" type="str" tumbling="1d" decimals="99"/>
    <agregate name="x"/>
  </view>
  <view name="empty" entity="user"><source topic="log:x" type="csv" path="a.csv" time="t"/>hello</view>
  <view name="lost" entity="user"><source type="parket" path="x"/><column name="uid" type="int" from="a"/></view>
</views>
"""


def test_every_problem_is_told_at_once_by_line(tmp_path: Path) -> None:
    path = tmp_path / "views.xml"
    path.write_text(WRONG)
    with pytest.raises(ProblemsFound) as found:
        read(path)
    told = [(problem.line, problem.code) for problem in found.value.problems]
    assert told == [
        (1, "VIEW003"), (1, "VIEW004"), (2, "VIEW006"), (3, "VIEW005"), (4, "VIEW003"), (4, "VIEW005"),
        (4, "VIEW007"), (4, "VIEW010"), (5, "VIEW008"), (6, "VIEW010"), (7, "VIEW005"), (7, "VIEW008"),
        (7, "VIEW010"), (8, "VIEW008"), (8, "VIEW008"), (9, "VIEW002"), (11, "VIEW002"), (11, "VIEW003"),
        (11, "VIEW003"), (12, "VIEW005"), (12, "VIEW009"),
    ]  # fmt: skip
    hints = " ".join(problem.hint for problem in found.value.problems)
    assert "did you mean 'name'?" in hints and "did you mean 'parquet'?" in hints


@pytest.mark.parametrize("text", ["<views/>", "no xml", '<!DOCTYPE x><views xmlns="urn:penstock:views:1"/>'])
def test_what_is_no_views_file_is_one_problem(tmp_path: Path, text: str) -> None:
    path = tmp_path / "views.xml"
    path.write_text(text)
    assert [problem.code for problem in check(path)] == ["VIEW001"]


def test_the_check_looks_at_the_headers_of_sources(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["u"], "at": [1], "town": ["x"]}).write_parquet(tmp_path / "e.parquet")
    shop(tmp_path, 'type="parquet" path="e.parquet" time="at" unit="s"')
    messages = [problem.message for problem in check(tmp_path / "views.xml")]
    assert messages == [f"the source of 'user_clicks' has no column '{n}'" for n in ("city", "new", "pieces", "price")]
    shop(tmp_path, 'type="parquet" path="nothing.parquet" time="at"')
    assert [problem.code for problem in check(tmp_path / "views.xml")] == ["VIEW009"]


def test_a_declaration_s_fingerprint_is_of_what_it_means(tmp_path: Path) -> None:
    first = shop(tmp_path, 'topic="log:a"')
    text = (tmp_path / "views.xml").read_text()

    def changed(old: str, new: str) -> bool:
        assert old in text
        (tmp_path / "views.xml").write_text(text.replace(old, new))
        return read(tmp_path / "views.xml").view("user_clicks").document != first.document

    assert not changed('owner="growth"', 'owner="search"')
    assert not changed('topic="log:a"', 'topic="kafka://h:1/a"')
    assert changed('sliding="60s"', 'sliding="50s"')
    assert changed('decimals="2"', 'decimals="3"')
    assert changed('key="user_id"', 'key="uid"')
