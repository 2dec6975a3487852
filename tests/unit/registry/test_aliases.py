"""Aliases move, and every move is on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.registry import Registry

Make = Callable[..., Path]


@pytest.fixture
def four(registry: Registry, bundle: Make) -> Registry:
    for number in range(4):
        registry.push(bundle(f"of {number}"), "ctr")
    return registry


def live(registry: Registry) -> int:
    return registry.resolve("models:/ctr@live").number


def test_every_move_says_who_when_from_to_and_why(four: Registry) -> None:
    four.alias("models:/ctr/1", "live", "first")
    four.alias("ctr/3", "live", "better")
    four.alias("ctr@live", "canary")
    four.drop_alias("ctr", "canary", "not needed")
    _, moves = four.describe("models:/ctr/3")
    assert [(m.alias, m.old, m.new, m.why) for m in moves] == [
        ("live", None, 1, "first"),
        ("live", 1, 3, "better"),
        ("canary", None, 3, ""),
        ("canary", 3, None, "not needed"),
    ]
    assert all("@" in m.by and m.at.startswith("20") for m in moves)


def test_rolling_back_twice_goes_back_twice(four: Registry) -> None:
    for number in (1, 2, 4):
        four.alias(f"ctr/{number}", "live")
    assert (four.rollback("ctr").number, live(four)) == (2, 2)
    assert (four.rollback("ctr").number, live(four)) == (1, 1)
    assert four.describe("ctr@live")[1][-1].why == "rollback from 2"
    with pytest.raises(PenstockError, match="REG003 alias 'live' of model 'ctr' named no version before 1"):
        four.rollback("ctr")
    assert four.rollback("ctr", number=4).number == 4, "further than back: any version it has named"


def test_rollback_goes_to_any_version_that_the_alias_has_named_and_to_no_other(four: Registry) -> None:
    for number in (1, 2, 4):
        four.alias(f"ctr/{number}", "live")
    assert four.rollback("ctr", number=1).number == 1
    with pytest.raises(PenstockError, match=r"REG003 alias 'live' of model 'ctr' never named version 3"):
        four.rollback("ctr", number=3)
    assert live(four) == 1


def test_an_alias_without_a_past_cannot_go_back(four: Registry) -> None:
    four.alias("ctr/1", "live")
    with pytest.raises(PenstockError, match="REG003 alias 'live' of model 'ctr' named no version before 1"):
        four.rollback("ctr")
    with pytest.raises(PenstockError, match="REG003 model 'ctr' has no alias 'canary'"):
        four.rollback("ctr", "canary")


def test_setting_an_alias_again_is_no_move(four: Registry) -> None:
    four.alias("ctr/1", "live")
    four.alias("ctr/1", "live")
    assert len(four.describe("ctr/1")[1]) == 1


@pytest.mark.parametrize("alias", ["1", "", "a b", "-x", "x" * 65])
def test_what_could_be_a_number_is_no_alias(four: Registry, alias: str) -> None:
    with pytest.raises(PenstockError, match="REG001"):
        four.alias("ctr/1", alias)
