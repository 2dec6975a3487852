"""`${...}`: what stands for what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ProblemsFound, RequestError
from penstock.flow import Flow, Param, ValueFault, interpolate, resolve
from penstock.flow.values import expand
from penstock.operators.secrets import SecretMissing, mask, reveal

VALUES = {"data": "logs", "run.id": "r7", "run.date": "2026-03-01T05:00:00", "flow.dir": "/flows"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${data}/x.csv", "logs/x.csv"),
        ("${ data }", "logs"),
        ("${run.id}-${flow.dir}", "r7-/flows"),
        ("${run.date}", "2026-03-01"),
        ("${run.date:%Y%m%d%H}", "2026030105"),
        ("${run.date-1d:%Y%m%d}", "20260228"),
        ("${run.date+1d}", "2026-03-02"),
        ("${run.date-6h:%d %H:%M}", "28 23:00"),
        ("$${data} costs $5", "${data} costs $5"),
        ("${secret.KEY}", "${secret.KEY}"),
        ("$${secret.KEY}", "$${secret.KEY}"),
        ("$data {data} $", "$data {data} $"),
    ],
)
def test_values_are_put_in(text: str, expected: str) -> None:
    assert interpolate(text, VALUES) == expected


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_PLACE", "/mnt")
    assert interpolate("${env.PENSTOCK_TEST_PLACE}/x", VALUES) == "/mnt/x"
    monkeypatch.delenv("PENSTOCK_TEST_PLACE")
    with pytest.raises(ValueFault, match="'PENSTOCK_TEST_PLACE' is not set"):
        interpolate("${env.PENSTOCK_TEST_PLACE}/x", VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/${run.date-2d..run.date:%m%d}.csv", ["a/0227.csv", "a/0228.csv", "a/0301.csv"]),
        ("${data}/${run.date..run.date}", ["logs/2026-03-01"]),
        ("h=${run.date-2h..run.date:%H}", ["h=03", "h=04", "h=05"]),
        ("${run.date-31d..run.date:%Y%m}", ["202601", "202602", "202603"]),
        ("${run.date-1d..run.date:%d}/${run.date-1h..run.date:%H}", ["28/04", "28/05", "01/04", "01/05"]),
        ("none", ["none"]),
    ],
)
def test_a_range_gives_a_path_a_step(text: str, expected: list[str]) -> None:
    assert list(expand(text, VALUES)) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("${dat}", "FLOW020"),
        ("${run.dat}", "FLOW020"),
        ("${", "FLOW021"),
        ("${}", "FLOW021"),
        ("${a b}", "FLOW021"),
        ("${run.date-1x}", "FLOW021"),
        ("${run.date-999999d}", "FLOW021"),
        ("${run.date-1d..run.date}", "FLOW028"),
    ],
)
def test_what_cannot_be_put_in_is_a_fault(text: str, code: str) -> None:
    with pytest.raises(ValueFault) as caught:
        interpolate(text, VALUES)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["${run.date..run.date-1d}", "${run.date..today}", "${run.date-999999h..run.date}"])
def test_a_range_that_cannot_be_is_a_fault(text: str) -> None:
    with pytest.raises(ValueFault) as caught:
        expand(text, VALUES)
    assert caught.value.code == "FLOW021"


@given(st.text(alphabet="${}.ab:run date-1", max_size=20))
def test_any_text_is_put_in_or_refused(text: str) -> None:
    for put in (interpolate, expand):
        try:
            put(text, VALUES)
        except ValueFault as fault:
            assert fault.code.startswith("FLOW02")


@given(st.text(max_size=20))
def test_a_text_escaped_is_the_text(text: str) -> None:
    assert reveal(interpolate(text.replace("${", "$${"), VALUES), {}) == text


# --- the values of a run ------------------------------------------------------------------------------------


def flow(*params: Param) -> Flow:
    return Flow("f", params=params, file="/flows/f.xml")


def test_set_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("b = 2\nc = 3.5\nd = 2026-01-02\ne = true\n", encoding="utf-8")
    found = resolve(
        flow(
            Param("a", default="0"),
            Param("b", "int"),
            Param("c", "float", "0"),
            Param("d", "date"),
            Param("e", "bool", "false"),
            Param("path", "path", "${flow.dir}/${a}"),
        ),
        {"c": "4"},
        file,
        "2026-03-01T05",
        "r1",
    )
    assert found == {
        "a": "0", "b": "2", "c": "4", "d": "2026-01-02", "e": "true", "path": "/flows/0",
        "run.id": "r1", "run.date": "2026-03-01T05:00:00", "flow.dir": "/flows",
    }  # fmt: skip


def test_all_wrong_parameters_are_told_at_once() -> None:
    params = (Param("n", "int", line=3), Param("f", "float", "x", line=4), Param("d", "date", "2026-02-30", line=5))
    with pytest.raises(ProblemsFound) as caught:
        resolve(flow(*params), {"n": "1.5", "m": "1"})
    assert [(p.line, p.code, p.message) for p in caught.value.problems] == [
        (0, "FLOW025", "there is no parameter 'm' to set"),
        (3, "FLOW023", "parameter 'n' is '1.5', which is not a whole number"),
        (4, "FLOW023", "the default of parameter 'f' is 'x', which is not a number"),
        (5, "FLOW023", "the default of parameter 'd' is '2026-02-30', which is not a date (YYYY-MM-DD)"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.json", '{"a": 1', "the JSON cannot be read: "),
        ("p.json", "[1]", "it does not hold names and values"),
        ("p.json", '{"a": [1]}', "the value of 'a' is neither"),
        ("p.toml", "a = ", "it cannot be read: "),
        ("p.json", None, "it cannot be read: No such file or directory"),
    ],
)
def test_a_bad_file_of_parameters_is_a_problem(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ProblemsFound) as caught:
        resolve(flow(Param("a", default="1")), params_file=tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.code == "FLOW029"
    assert problem.message.startswith(said)


@pytest.mark.parametrize("date", ["yesterday", "2026-1-1", "2026-02-30", "2026-01-01T25", ""])
def test_a_bad_date_is_a_wrong_request(date: str) -> None:
    with pytest.raises(RequestError, match="is not a date"):
        resolve(flow(), date=date)


# --- secrets ------------------------------------------------------------------------------------------------


def test_a_secret_is_put_in_only_where_it_is_needed() -> None:
    found = {"PENSTOCK_SECRET_KEY": "hunter2"}
    assert reveal("a ${secret.KEY} b $${secret.KEY}", found) == "a hunter2 b ${secret.KEY}"
    assert mask("the key is hunter2!", found) == "the key is ***!"
    with pytest.raises(SecretMissing, match="'KEY' is not set"):
        reveal("${secret.KEY}", {})


def test_a_given_value_cannot_ask_for_a_secret() -> None:
    found = resolve(flow(Param("a")), {"a": "${secret.KEY}"})
    assert reveal(interpolate("${a}", found), {"PENSTOCK_SECRET_KEY": "x"}) == "${secret.KEY}"
