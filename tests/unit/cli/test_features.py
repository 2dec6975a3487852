"""`penstock features` as a new user types it."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from penstock.cli.main import main

FILE = """<features xmlns="urn:penstock:features:1" name="ctr">
  <dict name="cities" path="${folder}/cities.txt"/>
  <slot name="city_id" id="1" fn="pickcat" from="city" dict="cities"/>
  <slot name="tag" id="2" fn="hash" from="tags" weight="w"/>
  <slot name="hour" id="3" fn="bucketize_time" from="ts" part="hour"/>
  <dense name="price_log" fn="log1p" from="price"/>
</features>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "features.xml").write_text(FILE)
    (tmp_path / "cities.txt").write_text("Roma\nParis\n")
    pl.DataFrame(
        {"city": ["Paris", "Oslo"], "tags": [["a"], ["a", "b"]], "w": [0.5, 2.0], "ts": [0, 3_600_000_000],
         "price": [0.0, 1.5], "label": [1, 0]},
        schema_overrides={"ts": pl.Datetime("us")},
    ).write_parquet(tmp_path / "rows.parquet")  # fmt: skip
    return tmp_path


def test_check_is_silent_about_a_good_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["features", "check", str(folder / "features.xml"), "--set", f"folder={folder}", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main([*command, "--columns", str(folder / "rows.parquet")]) == 0


def test_check_finds_everything_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = folder / "bad.xml"
    bad.write_text(FILE.replace('from="city"', 'from="ctiy"').replace('id="3"', 'id="2"'))
    (folder / "cities.txt").write_text("Roma\nRoma\n")
    command = ["features", "check", str(bad), "--set", f"folder={folder}", "--columns", str(folder / "rows.parquet")]
    assert main([*command, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [(Path(p["file"]).name, p["line"], p["code"]) for p in found] == [
        ("bad.xml", 3, "FEAT010"), ("bad.xml", 5, "FEAT007"), ("cities.txt", 2, "FEAT017"),
    ]  # fmt: skip
    assert found[0]["hint"] == "did you mean 'city'?"
    assert main(command) == 2
    assert f"{bad}:3: FEAT010" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["slots", "flat"])
@pytest.mark.parametrize("suffix", ["parquet", "json", "libsvm"])
def test_apply_writes_every_format(folder: Path, capsys: pytest.CaptureFixture[str], suffix: str, form: str) -> None:
    out = folder / f"out.{suffix}"
    command = ["features", "apply", str(folder / "features.xml"), str(folder / "rows.parquet"), str(out)]
    assert main([*command, "--set", f"folder={folder}", "--keep", "label", "--form", form, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 2 and said["rejected"] == 0 and said["seconds"] > 0
    if suffix == "parquet":
        mapped = pl.read_parquet(out)
        if form == "slots":
            assert mapped.columns == ["label", "city_id", "tag", "tag__weight", "hour", "price_log"]
            assert mapped["tag__weight"].to_list() == [[0.5], [2.0, 2.0]]
            assert mapped["hour"].to_list() == [[3 << 52], [3 << 52 | 1]]
        else:
            assert mapped["weights"].to_list() == [[1.0, 0.5, 1.0], [1.0, 2.0, 2.0, 1.0]]
    elif suffix == "json":
        assert json.loads(out.read_text().splitlines()[0])["label"] == 1
    else:
        first = out.read_text().splitlines()[0].split()
        assert first[0] == "1" and first[1] == f"{1 << 52 | 2}:1" and len(first) == 4


def _command(folder: Path, file: str, out: Path) -> list[str]:
    rows = str(folder / "rows.parquet")
    return ["features", "apply", str(folder / file), rows, str(out), "--set", f"folder={folder}"]


def test_what_cannot_be_applied_leaves_the_old_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out.parquet"
    out.write_text("old")
    (folder / "bad.xml").write_text(FILE.replace('fn="hash" from="tags"', 'fn="identity" from="price"'))
    assert main(_command(folder, "bad.xml", out)) != 0
    assert "tag" in capsys.readouterr().err
    assert out.read_text() == "old"


def test_fitted_functions_learn_from_the_rows_themselves_or_from_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out.parquet"
    (folder / "fit.xml").write_text(FILE.replace('fn="log1p"', 'fn="normalize" fit="true"'))
    command = _command(folder, "fit.xml", out)
    assert main(command) == 0
    assert "price_log: learnt from" in capsys.readouterr().err
    assert pl.read_parquet(out)["price_log"].to_list() == [-1.0, 1.0]
    pl.read_parquet(folder / "rows.parquet").with_columns(price=pl.Series([1.5, 4.5])).write_parquet(
        folder / "other.parquet"
    )
    assert main([*command, "--fit-from", str(folder / "other.parquet")]) == 0
    assert pl.read_parquet(out)["price_log"].to_list() == [-2.0, -1.0]


def test_libsvm_takes_the_one_kept_column_for_the_label(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.read_parquet(folder / "rows.parquet").rename({"label": "clicked"})
    frame.write_parquet(folder / "rows.parquet")
    out = folder / "out.libsvm"
    command = _command(folder, "features.xml", out)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{out}:0: DATA022") and "--keep label" in said
    assert main([*command, "--keep", "clicked"]) == 0
    assert [line[0] for line in out.read_text().splitlines()] == ["1", "0"]
    assert f"{out}:0: DATA020 warning" in capsys.readouterr().err


def test_times_and_days_in_json_are_read_as_such(folder: Path) -> None:
    (folder / "times.xml").write_text(
        """<features xmlns="urn:penstock:features:1" name="times">
        <slot name="hour" id="1" fn="bucketize_time" from="ts" part="hour" tz="Asia/Tokyo"/>
        <slot name="weekday" id="2" fn="bucketize_time" from="day" part="weekday" tz="America/New_York"/>
        <slot name="day_key" id="3" fn="hash" from="day"/></features>"""
    )
    rows = [{"ts": None}, {"ts": "2026-01-31T07:30:00Z", "day": "2026-01-31"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pl.DataFrame({"ts": [None, datetime(2026, 1, 31, 7, 30)], "day": [None, date(2026, 1, 31)]}).write_parquet(
        folder / "rows.parquet"
    )
    out, same = folder / "out.parquet", folder / "same.parquet"
    command = _command(folder, "times.xml", out)
    command[3] = str(folder / "rows.jsonl")
    assert main(command) == 0
    assert pl.read_parquet(out)["hour"].to_list() == [[], [1 << 52 | 16]]
    assert pl.read_parquet(out)["weekday"].to_list() == [[], [2 << 52 | 5]]
    assert main(_command(folder, "times.xml", same)) == 0
    assert pl.read_parquet(same).equals(pl.read_parquet(out))


def test_explain_reads_lists_of_moments_and_of_unsigned_integers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "lists.xml").write_text(
        """<features xmlns="urn:penstock:features:1" name="lists">
        <slot name="hours" id="1" fn="bucketize_time" from="times" part="hour"/>
        <slot name="ids" id="2" fn="multi_hot" from="numbers"/></features>"""
    )
    row = {"times": ["2026-01-31T07:30:00", None, "1970-01-01T23:00:00+00:00"], "numbers": [3, 2**64 - 1]}
    assert main(["features", "explain", str(folder / "lists.xml"), "--row", json.dumps(row), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["key"] for f in found[:2]] == [str(1 << 52 | 7), str(1 << 52 | 23)]
    assert [f["text"] for f in found[2:]] == ["3", str(2**64 - 1)]


def test_explain_says_what_each_key_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"city": "Paris", "tags": ["a", None, "b"], "w": 2, "ts": "2026-01-31T07:30:00", "price": None}
    command = [
        "features",
        "explain",
        str(folder / "features.xml"),
        "--set",
        f"folder={folder}",
        "--row",
        json.dumps(row),
    ]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0] == {"slot": "city_id", "id": 1, "key": str(1 << 52 | 2), "text": found[0]["text"], "weight": 1.0}
    assert [f["text"] for f in found[1:3]] == ["a", "b"] and found[1]["weight"] == 2.0
    assert found[3]["key"] == str(3 << 52 | 7)
    assert found[4] == {"dense": "price_log", "value": 0.0}
    assert main(command) == 0
    assert "Paris" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["apply", "{f}/features.xml", "{f}/none.parquet", "{f}/o.parquet"], "none.parquet does not exist"),
        (["apply", "{f}/features.xml", "{f}/rows.parquet", "{f}/o.xyz"], "cannot be told by its suffix"),
        (["apply", "{f}/none.xml", "{f}/rows.parquet", "{f}/o.parquet"], "cannot be read"),
        (["explain", "{f}/features.xml", "--row", "[1]"], "not a JSON object"),
        (["explain", "{f}/features.xml", "--row", "{{"], "is not JSON"),
        (["check", "{f}/features.xml", "--set", "folder"], "--set takes K=V"),
    ],
)
def test_a_wrong_request_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    filled = [argument.format(f=folder) for argument in arguments]
    if "--set" not in filled:
        filled += ["--set", f"folder={folder}"]
    assert main(["features", *filled]) == 2
    assert said in capsys.readouterr().err


def test_a_changed_user_function_is_noticed_behind_a_cached_prediction(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder / "behind_a_bundle.py"
    source.write_text("def half(x):\n    return x / 2\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    (folder / "half.xml").write_text(
        '<features xmlns="urn:penstock:features:1" name="f">'
        '<dense name="h" fn="behind_a_bundle:half" from="price"/></features>'
    )
    pl.DataFrame({"price": [0.0, 1.0] * 100, "label": [0, 1] * 100}).write_parquet(folder / "rows.parquet")
    rows = '<input name="rows" type="parquet" path="rows.parquet"/>'
    flow = '<flow xmlns="urn:penstock:flow:1" name="f"><node name="n">{}</node></flow>'
    (folder / "train.xml").write_text(
        flow.format(
            f'{rows}<process name="f" type="features" from="rows" map="half.xml" keep="label"/>'
            '<process name="m" type="svm" from="f" label="label" c="1"/>'
            '<output name="b" type="model" from="m" path="bundle"/>'
        )
    )
    (folder / "score.xml").write_text(
        flow.format(
            f'{rows}<process name="s" type="predict" from="rows" model="bundle"/>'
            '<output name="o" type="parquet" from="s" path="scores.parquet"/>'
        )
    )
    assert main(["flow", "run", str(folder / "train.xml")]) == 0
    assert main(["flow", "run", str(folder / "score.xml")]) == 0
    source.unlink()
    sys.modules.pop("behind_a_bundle")
    capsys.readouterr()
    assert main(["flow", "run", str(folder / "score.xml")]) == 1
    assert "behind_a_bundle" in capsys.readouterr().err
