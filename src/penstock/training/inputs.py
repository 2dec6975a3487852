"""Which columns a model takes from a frame, decided from the schema alone: the same at check and when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from penstock.data.schema import Column, Schema
from penstock.errors import did_you_mean
from penstock.operators.base import Fault
from penstock.operators.column_checks import listed


@dataclass(frozen=True)
class Layout:
    """The columns a model reads, by what they are to it. Stored in the bundle's manifest.

    `numeric`: a number each. `vectors`: lists of numbers of one fixed length. `categorical`: one category each.
    `slots`: (list of keys, list or number of weights or ""). `positions`: each place in a list is a field of its own.
    """

    numeric: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    slots: tuple[tuple[str, str], ...] = ()
    positions: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        slots = (name for pair in self.slots for name in pair if name)
        return tuple(dict.fromkeys((*self.numeric, *self.vectors, *self.categorical, *slots)))

    @property
    def empty(self) -> bool:
        return not self.columns

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Layout:
        return Layout(
            tuple(stored["numeric"]),
            tuple(stored["vectors"]),
            tuple(stored["categorical"]),
            tuple((str(keys), str(weights)) for keys, weights in stored["slots"]),
            bool(stored["positions"]),
        )


@dataclass(frozen=True)
class Wanted:
    """What the step asks for, as its attributes say."""

    label: str
    weight: str = ""
    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    keys: str = ""
    weights: str = ""
    fields: str = ""
    #: Whether the algorithm takes categories as they are (trees), and sparse keys.
    categories: bool = False
    sparse: bool = False


def choose(schema: Schema, wanted: Wanted) -> tuple[Layout, list[Fault]]:
    """The layout, and every fault found on the way. Columns of unknown type are passed over in silence."""
    faults = _label_faults(schema, wanted) + _unknown(schema, wanted)
    if wanted.weights and not wanted.keys:
        faults.append(Fault("TRAIN007", "weights is given without keys", 'keys="..." names the list that it weighs'))
    if wanted.fields and not wanted.keys:
        faults.append(Fault("TRAIN007", "fields is given without keys", 'keys="..." names the list of keys'))
    numeric, vectors, categorical, slots = [], [], [], []
    for column in _candidates(schema, wanted):
        named = column.name in wanted.columns
        kind = _kind(column)
        if kind in ("slot", "vector") and not (column.role or named or column.name in wanted.categorical):
            continue  # a raw list is learnt from only where it is named, as keys or among columns
        if column.name in wanted.categorical and kind in ("number", "category", "slot"):
            categorical.append(column.name)
        elif kind == "number":
            numeric.append(column.name)
        elif kind == "category" and wanted.categories:
            categorical.append(column.name)
        elif kind == "vector":
            vectors.append(column.name)
        elif kind == "slot" and wanted.sparse:
            slots.append((column.name, _companion(column.name, schema)))
        elif kind == "unknown" or (kind == "slot" and not named) or not named:
            continue
        else:
            hint = "map it to slots or numbers in a features step first"
            faults.append(
                Fault(
                    "TRAIN008",
                    f"column '{column.name}' is {column.type}, which '{wanted.label}' cannot be learnt from as it is",
                    hint,
                )
            )
    if wanted.keys:
        slots.append((wanted.keys, wanted.weights))
        faults += _key_faults(schema, wanted)
    layout = Layout(tuple(numeric), tuple(vectors), tuple(categorical), tuple(slots), wanted.fields == "position")
    if layout.empty and not schema.open and all(c.type is not None for c in schema) and not faults:
        faults.append(_nothing(schema, wanted))
    return layout, faults


def _candidates(schema: Schema, wanted: Wanted) -> Iterable[Column]:
    own = {wanted.label, wanted.weight, wanted.keys, wanted.weights, *wanted.exclude} - {""}
    if wanted.columns:
        found = (schema.get(name) for name in dict.fromkeys((*wanted.columns, *wanted.categorical)))
        return [c for c in found if c is not None and c.name not in own]
    if wanted.keys:
        return [c for c in schema if c.name in wanted.categorical and c.name not in own]
    mapped = any(c.role in ("slot", "dense") for c in schema)
    roles = ("slot", "dense") if mapped else ("",)
    return [c for c in schema if c.name not in own and (c.role in roles or c.name in wanted.categorical)]


def _kind(column: Column) -> str:
    type_ = column.type
    if type_ is None:
        return "unknown"
    if is_list(type_):
        value = type_.value_type
        if pa.types.is_integer(value):
            return "slot"
        if pa.types.is_floating(value):
            return "companion" if column.role == "slot" else "vector"
        return "other"
    if is_number(type_) or pa.types.is_boolean(type_):
        return "number"
    if is_text(type_):
        return "category"
    return "other"


def _companion(slot: str, schema: Schema) -> str:
    """The column of a slot's weights, as `features` names it."""
    for name in (f"{slot}__weight", "weights" if slot == "keys" else ""):
        column = schema.get(name) if name else None
        if column is not None and column.type is not None and is_list(column.type):
            return name
    return ""


def _label_faults(schema: Schema, wanted: Wanted) -> list[Fault]:
    faults = []
    for field, name in (("label", wanted.label), ("weight", wanted.weight)):
        column = schema.get(name) if name else None
        if not name:
            continue
        if column is None:
            if not schema.open:
                mapped = any(c.role in ("slot", "dense") for c in schema)
                otherwise = (
                    f'let it through the features step: keep="{name}"' if mapped else f"columns: {listed(schema.names)}"
                )
                hint = did_you_mean(name, schema.names, otherwise)
                faults.append(Fault("TRAIN001", f"{field} '{name}' is not a column of what arrives", hint))
        elif column.type is not None and not (is_number(column.type) or pa.types.is_boolean(column.type)):
            code = "TRAIN001" if field == "label" else "TRAIN005"
            said = "labels are 0 and 1, -1 and 1, or booleans" if field == "label" else "weights are numbers"
            hint = f"derive one first: columns=\"cast({name} = 'yes' as int) as {name}\"" if field == "label" else ""
            faults.append(Fault(code, f"{field} '{name}' is {column.type}; {said}", hint))
    return faults


def _unknown(schema: Schema, wanted: Wanted) -> list[Fault]:
    if schema.open:
        return []
    given = {
        "columns": wanted.columns,
        "exclude": wanted.exclude,
        "categorical": wanted.categorical,
        "keys": (wanted.keys,) if wanted.keys else (),
        "weights": (wanted.weights,) if wanted.weights else (),
    }
    return [
        Fault(
            "TRAIN007",
            f"{field}: there is no column '{name}'",
            did_you_mean(name, schema.names, f"the columns are {listed(schema.names)}"),
        )
        for field, names in given.items()
        for name in names
        if name not in schema
    ]


def _key_faults(schema: Schema, wanted: Wanted) -> list[Fault]:
    faults = []
    keys, weights = schema.get(wanted.keys), schema.get(wanted.weights) if wanted.weights else None
    if keys is not None and keys.type is not None and not (is_list(keys.type) and _integers(keys.type)):
        said = f"keys: column '{keys.name}' is {keys.type}, not a list of integers"
        faults.append(Fault("TRAIN008", said, "a libsvm input has them in 'indices', a features step in its slots"))
    if weights is not None and weights.type is not None:
        number = weights.type.value_type if is_list(weights.type) else weights.type
        if not is_number(number):
            said = f"weights: column '{weights.name}' is {weights.type}, not a list of numbers"
            faults.append(Fault("TRAIN008", said))
    return faults


def _nothing(schema: Schema, wanted: Wanted) -> Fault:
    if any(c.role == "kept" for c in schema):
        hint = "what keep carried is used only where columns names it"
    else:
        hint = "numbers are taken as they are" + (" and strings as categories" if wanted.categories else "")
    return Fault("TRAIN006", f"there is no column to learn from among {listed(schema.names)}", hint)


def is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _integers(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_.value_type))
