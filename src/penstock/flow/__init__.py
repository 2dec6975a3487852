"""The flow language: XML, canvas JSON and Python scripts become a `Flow`, are checked, and are planned.

In: files. Out: `read(path) -> Flow`; `resolve(flow, ...) -> values`; `check(flow, values) -> CheckedFlow` with
`.problems` and `.infos`; `plan(checked) -> Plan`, whose nodes the runner starts. Read `model.py` first, then `plan.py`.

    flow = read("ctr.xml")                                    # raises ProblemsFound
    values = resolve(flow, set={"data": "/data"}, params_file=None, date=None, run_id="r1")   # raises ProblemsFound
    checked = check(flow, values)                             # never raises for the user's mistakes
    checked.raise_errors()                                    # ProblemsFound, warnings included
    todo = plan(checked)
"""

from penstock.flow.check import CheckedFlow, check, check_file
from penstock.flow.model import Flow, Node, Param, Step
from penstock.flow.plan import Plan, PlannedNode, PlannedOutput, plan
from penstock.flow.reader import load, read, write
from penstock.flow.values import ValueFault, interpolate, resolve, run_date

__all__ = [
    "CheckedFlow",
    "Flow",
    "Node",
    "Param",
    "Plan",
    "PlannedNode",
    "PlannedOutput",
    "Step",
    "ValueFault",
    "check",
    "check_file",
    "interpolate",
    "load",
    "plan",
    "read",
    "resolve",
    "run_date",
    "write",
]
