"""Rows without a key and keys without a row, slot by slot, while a model trains."""

from __future__ import annotations

import pytest

from penstock.training.missing_rates import MissingRates


def test_rates_are_shares_of_rows_and_of_keys() -> None:
    rates = MissingRates(["user", "tags"])
    rates.update(100, {"user": 10, "tags": 50}, {"user": (45, 90), "tags": (0, 0)})
    rates.update(300, {"user": 10, "tags": 50}, {"user": (0, 290), "tags": (3, 30)})
    values = rates.values()
    assert values["user"]["missing"] == pytest.approx(20 / 400)
    assert values["user"]["unknown"] == pytest.approx(45 / 380)
    assert values["tags"]["missing"] == pytest.approx(100 / 400)
    assert values["tags"]["unknown"] == pytest.approx(3 / 30)


def test_what_was_never_counted_is_undefined() -> None:
    rates = MissingRates(["user", "tags"])
    rates.update(100, {"user": 0})
    assert rates.values()["user"] == {"missing": 0, "unknown": None, "decayed_missing": 0, "decayed_unknown": None}
    assert set(rates.values()["tags"].values()) == {None}


def test_a_slot_that_dries_up_shows_in_the_decayed_rate() -> None:
    rates = MissingRates(["user"], half_life=1_000)
    for _ in range(100):
        rates.update(1_000, {"user": 10})
    for _ in range(3):
        rates.update(1_000, {"user": 1_000})
    values = rates.values()["user"]
    assert values["missing"] < 0.05
    assert values["decayed_missing"] == pytest.approx(1 - 0.99 / 8, abs=1e-6)


def test_restored_rates_go_on_bit_for_bit() -> None:
    rates = MissingRates(["nutzer", "größe"], half_life=777)
    for number in range(50):
        rates.update(100 + number, {"nutzer": number, "größe": 3}, {"größe": (number, 2 * number)})
    again = MissingRates.restore(rates.state())
    for each in (rates, again):
        each.update(10, {"nutzer": 1}, {"größe": (1, 2)})
    assert again.values() == rates.values()
    assert again.state() == rates.state()
    for wrong in (b"", b"{}", rates.state()[:-1], rates.state()[:20]):
        with pytest.raises(ValueError, match=r"not the state of missing rates"):
            MissingRates.restore(wrong)


def test_counts_that_cannot_be_are_refused_and_change_nothing() -> None:
    rates = MissingRates(["user", "item"])
    before = rates.state()
    with pytest.raises(ValueError, match=r"no slot 'usr'; did you mean 'user'\?"):
        rates.update(10, {"usr": 1})
    with pytest.raises(ValueError, match=r"slot 'item': 11 of 10 cannot be"):
        rates.update(10, {"user": 1, "item": 11})
    with pytest.raises(ValueError, match=r"slot 'item': 5 of 4 cannot be"):
        rates.update(10, unknown={"item": (5, 4)})
    assert rates.state() == before
