"""Base classes and the data operators.

In: attributes of a flow's step. Out: frozen values that check schemas and build lazy frames.
Read `base.py` first, then any one of the others; `catalog.py` finds them by name.
"""

from penstock.operators.base import (
    CheckContext,
    Checked,
    ColumnName,
    Columns,
    Expression,
    Fault,
    Form,
    Input,
    Location,
    Model,
    ModelRef,
    Names,
    Operator,
    Output,
    Process,
    Ref,
    Reference,
    Refs,
    Result,
    RunContext,
)
from penstock.operators.catalog import UnknownOperator, installed, operator, user_operator

__all__ = [
    "CheckContext",
    "Checked",
    "ColumnName",
    "Columns",
    "Expression",
    "Fault",
    "Form",
    "Input",
    "Location",
    "Model",
    "ModelRef",
    "Names",
    "Operator",
    "Output",
    "Process",
    "Ref",
    "Reference",
    "Refs",
    "Result",
    "RunContext",
    "UnknownOperator",
    "installed",
    "operator",
    "user_operator",
]
