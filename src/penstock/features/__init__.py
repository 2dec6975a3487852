"""Feature files: what comes in is `features.xml` and raw rows, what goes out is a plan and mapped rows.

`parse` reads the file, `check` gives it a meaning, `fit` learns, `resolve` makes the `Plan`, which the Rust kernel
runs. Read `functions.py` first: it is the one table of what a feature can be.
"""

from penstock.features.check import CheckedFile, check
from penstock.features.parse import read
from penstock.features.plan import Plan, PlanError
from penstock.features.plans import find_plan, keep, load

__all__ = ["CheckedFile", "Plan", "PlanError", "check", "find_plan", "keep", "load", "read"]
