"""`views` as a step of a flow, and the commands that list views and write them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from penstock.cli.main import main
from penstock.data.schema import Column, Schema
from penstock.features.views.operators import Views
from penstock.operators.base import CheckContext

from .views_cases import expected, shop

FLOW = """<flow xmlns="urn:penstock:flow:1" name="f"><node name="n" engine="local">
  <input name="rows" type="parquet" path="samples.parquet"/>
  <process name="few" type="filter" from="rows" where="s &gt; 2"/>
  <process name="known" class="penstock.features.views.operators:Views" from="few" map="views.xml" use="user_clicks"
           time="s" unit="s"/>
  <output name="out" type="parquet" from="known" path="out.parquet"/>
</node></flow>"""
EVENTS = [
    {"user_id": f"u{n % 3}", "s": n, "city": f"c{n}", "price": n / 4, "pieces": n, "new": n % 2 == 0} for n in range(40)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(EVENTS).write_parquet("events.parquet")
    shop(tmp_path, 'type="parquet" path="events.parquet" time="s" unit="s"')
    pl.DataFrame(
        {"n": range(90), "user_id": [f"u{n % 4}" for n in range(90)], "s": [n // 2 for n in range(90)]}
    ).write_parquet("samples.parquet")
    (tmp_path / "flow.xml").write_text(FLOW)
    return tmp_path


def test_a_step_joins_views_as_of_each_row_s_time(folder: Path) -> None:
    assert main(["flow", "run", "flow.xml"]) == 0
    out = pl.read_parquet("out.parquet")
    assert out["n"].to_list() == list(range(6, 90))
    wanted = [expected(EVENTS, f"u{n % 4}", n // 2) for n in range(6, 90)]
    assert out.drop("n", "user_id", "s").to_dicts() == wanted


def test_the_check_knows_what_comes_out_and_what_is_missing(folder: Path) -> None:
    step = Views(**{"from": "rows", "map": str(folder / "views.xml"), "time": "at"})
    schema = Schema((Column("user", None), Column("city", None)))
    told = [(fault.code, fault.message) for fault in step.check({"rows": schema}, CheckContext()).faults]
    assert told == [("VIEW012", "view 'user_clicks' gives 'city', which the samples have too")]
    checked = step.check({"rows": Schema((Column("user", None),))}, CheckContext())
    assert {fault.code for fault in checked.faults} == {"OPER101", "VIEW011"}
    out = checked.outputs[""]
    assert isinstance(out, Schema)
    assert str(out.get("clicks").type) == "int64" and str(out.get("city").type) == "string"  # type: ignore[union-attr]


def test_the_step_runs_again_when_events_were_added(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cached() -> bool:
        capsys.readouterr()
        assert main(["flow", "run", "flow.xml", "--json"]) == 0
        return bool(json.loads(capsys.readouterr().out)["nodes"][0]["cached"])

    assert not cached()
    assert cached()
    pl.DataFrame(EVENTS[:7]).write_parquet("events.parquet")
    assert not cached()


def test_views_are_found_with_what_reads_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "check", "views.xml"]) == 0
    capsys.readouterr()
    assert main(["features", "ls", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["view"], found["owner"], found["models"]) == ("user_clicks", "growth", {})
    assert main(["features", "show", "user_clicks"]) == 0
    shown = capsys.readouterr().out
    assert "what a user did lately" in shown and "sliding 60 s every 10 s" in shown and "tumbling 30 s" in shown
    assert main(["features", "show", "user_click"]) == 2
    assert "did you mean 'user_clicks'?" in capsys.readouterr().err


def test_a_model_that_reads_a_view_s_columns_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FLOW.replace(
        '<output name="out" type="parquet" from="known" path="out.parquet"/>',
        '<process name="labelled" type="derive" from="known" columns="cast(n % 2 as int) as label"/>'
        '<process name="m" type="lr" from="labelled" label="label" columns="clicks spend" epochs="1"/>'
        '<output name="out" type="model" from="m" path="model"/>',
    )
    (folder / "flow.xml").write_text(text)
    assert main(["flow", "run", "flow.xml"]) == 0
    assert main(["models", "push", "model", "--name", "buys", "--registry", str(folder / "registry")]) == 0
    capsys.readouterr()
    assert main(["features", "ls", "--json", "--registry", str(folder / "registry")]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["models"] == {"buys/1": ["clicks", "spend"]}


def test_materialise_tells_what_it_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "materialise", "views.xml", "--to", "lmdb:online", "--json"]) == 0
    (written,) = json.loads(capsys.readouterr().out)
    assert (written["view"], written["events"]) == ("user_clicks", 40)
    assert main(["features", "materialise", "views.xml", "user_clik", "--to", "lmdb:online"]) == 2
    assert "VIEW020" in capsys.readouterr().err
