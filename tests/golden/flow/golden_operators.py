"""Operators of a user who makes mistakes."""

from collections.abc import Mapping

from penstock.data.schema import Info
from penstock.operators import CheckContext, Checked, Process


class Broken(Process):
    """Its check has a bug."""

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        raise KeyError("oops")
