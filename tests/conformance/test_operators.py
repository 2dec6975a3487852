"""Every installed operator, built in or from a plugin, keeps an operator's promises."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
import pytest
from pydantic import ConfigDict, Field

from penstock.data.schema import Schema
from penstock.operators import Checked, Process, installed, operator
from penstock.operators.conformance import PROMISES, examine


@pytest.mark.parametrize(("kind", "type_"), sorted(installed()), ids=lambda v: str(v))
def test_an_installed_operator_keeps_its_promises(kind: str, type_: str) -> None:
    findings = examine(operator(kind, type_))
    assert [f"{f.promise}: {f.message}" for f in findings if not f.kept] == []
    assert len(findings) == len(PROMISES)


class Tidy(Process):
    """Drops rows without a city."""

    example: ClassVar[str] = '<process name="t" class="mine:Tidy" from="rows"/>'
    row_wise: ClassVar[bool] = True
    city: str = Field("city", description="the column")

    def check(self, inputs, context):  # type: ignore[no-untyped-def]
        return Checked({"": inputs[self.from_]})

    def run(self, inputs, context):  # type: ignore[no-untyped-def]
        return inputs[self.from_].filter(pl.col(self.city).is_not_null())


class Careless(Process):
    model_config = ConfigDict(frozen=False, extra="allow")
    example: ClassVar[str] = '<process name="t" class="mine:Careless" from="rows"/>'
    row_wise: ClassVar[bool] = True
    count: int = 1

    def check(self, inputs, context):  # type: ignore[no-untyped-def]
        return Checked({"": inputs[self.from_], "other": Schema()})

    def run(self, inputs, context):  # type: ignore[no-untyped-def]
        return inputs[self.from_].with_row_index("ordinal")


def test_a_sound_operator_of_a_user_passes() -> None:
    assert [f for f in examine(Tidy) if not f.kept] == []
    assert not any(f.message for f in examine(Tidy) if "output" not in f.promise)


def test_each_broken_promise_is_told() -> None:
    broken = {f.promise for f in examine(Careless) if not f.kept}
    assert broken == {
        "it has a reference page: the docstring",
        "every attribute says what it is for",
        "an unknown attribute is refused",
        "it is a value: equal by its attributes, never changed",
        "check speaks of the ports it has",
        "what comes out has the columns that check promised",
        "row-wise means row by row",
    }
