"""The semantic pass over a feature file: every name, function and parameter gets a meaning, or a fault saying why not.

`check` finds everything at once and never reads data; what it knows of the raw columns is their schema. Each item is
checked by small functions of one concern; `names.py` has the checks of names, `dictionaries.py` those of dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.data.schema import Schema
from penstock.errors import did_you_mean
from penstock.features import dictionaries, formula, functions, names, user_functions
from penstock.features.functions import COMMON, FUNCTIONS, Function
from penstock.features.model import FeatureFile, Item
from penstock.features.names import Named, Scope, Source
from penstock.features.parameters import Fit
from penstock.features.types import NUMERIC, ValueType
from penstock.features.user_functions import UserFunction, UserFunctionError
from penstock.operators.base import Fault

#: A misspelt name leaves what it meant without a use: one fault is one problem.
_BREAKS_USE = frozenset({"FEAT003", "FEAT005", "FEAT009", "FEAT010", "FEAT015", "FEAT021"})


@dataclass(frozen=True)
class CheckedItem:
    """An item whose attributes have become values. `params` may hold a `Fit` where a value is to be learnt."""

    item: Item
    function: Function
    sources: tuple[Source, ...]
    params: Mapping[str, Any]
    gives: ValueType
    common: Mapping[str, Any] = field(default_factory=dict)
    weight: Source | None = None
    weighted: bool = False
    user: UserFunction | None = None

    @property
    def fit(self) -> Fit | None:
        """What this item learns from the data, if anything."""
        if self.params.get("fit") is True:
            return Fit("normalize")
        return next((value for value in self.params.values() if isinstance(value, Fit)), None)


@dataclass(frozen=True)
class CheckedFile:
    """A checked file. `resolve` may use it where `failed` is false; `places` says where each dictionary lies."""

    file: FeatureFile
    items: tuple[CheckedItem, ...]
    places: Mapping[str, Path]
    faults: tuple[Fault, ...]

    @property
    def failed(self) -> bool:
        return any(fault.severity == "error" for fault in self.faults)

    @property
    def fitted(self) -> tuple[CheckedItem, ...]:
        """The items that learn from the data."""
        return tuple(item for item in self.items if item.fit is not None)


def check(file: FeatureFile, schema: Schema, places: dictionaries.Places | None = None) -> CheckedFile:
    """Check `file` against the raw columns of `schema` (open: what is not listed may exist)."""
    found = dictionaries.check(file, places or dictionaries.Places())
    faults = [*names.repeated(file), *found.faults]
    scope = Scope(file, schema)
    items = []
    for item in file.items:
        checked, wrong = _Checking(file, item, scope, found.known).run()
        faults += wrong
        items.append(checked)
        scope.declare(Named(item, checked.gives, checked.weighted))
    faults += names.taken_weights(file, {checked.item.name for checked in items if checked.weighted})
    if not any(fault.code in _BREAKS_USE for fault in faults):
        faults += names.dead(file, scope.used, _dictionaries_used(items))
    ordered = sorted(faults, key=lambda fault: (fault.file != file.shown, fault.line))
    return CheckedFile(file, tuple(items), found.places, tuple(ordered))


def _dictionaries_used(items: list[CheckedItem]) -> set[str]:
    return {str(item.params["dict"]) for item in items if "dict" in item.params}


class _Checking:
    """The check of one item; `faults` grows as it goes."""

    def __init__(self, file: FeatureFile, item: Item, scope: Scope, dicts: frozenset[str]) -> None:
        self.file = file
        self.item = item
        self.scope = scope
        self.dicts = dicts
        self.faults: list[Fault] = []
        self.user: UserFunction | None = None

    def fault(self, code: str, message: str, hint: str = "") -> None:
        item = self.item
        self.faults.append(
            Fault(code, f"{item.kind} '{item.name}': {message}", hint, file=self.file.shown, line=item.line)
        )

    def run(self) -> tuple[CheckedItem, list[Fault]]:
        function = self.function()
        params, common = self.parameters(function)
        written = self.inputs(function, params)
        sources = [self.scope.source(name) for name in written]
        types = [self.input_type(name, function) for name in written]
        self.lists(function, types)
        if function is not None:
            self.combinations(function, params, types)
        weight = self.weight(common.get("weight"), function, types)
        gives = function.gives(types) if function and types else ValueType("float", False)
        if self.item.kind == "dense":
            gives = ValueType("float", False)
        weighted = weight is not None or (
            self.item.kind == "slot" and self.item.fn == "descartes" and any(self.scope.weighted(n) for n in written)
        )
        checked = CheckedItem(
            self.item,
            function or functions.UNIMPORTED,
            tuple(sources),
            params,
            gives,
            common,
            weight,
            weighted,
            self.user,
        )
        return checked, self.faults

    # --- the function and its parameters --------------------------------------------------------------------

    def function(self) -> Function | None:
        fn, kind = self.item.fn, self.item.kind
        if not fn:
            return None
        if ":" in fn:
            try:
                self.user = user_functions.find(fn, self.item.attrs.get("takes", ""))
            except UserFunctionError as error:
                self.fault("FEAT024", error.message, error.hint)
                return functions.UNIMPORTED
            return functions.user_function(fn, self.user.takes, self.user.arity)
        found = FUNCTIONS.get(fn)
        if found is None:
            standing = sorted(name for name, row in FUNCTIONS.items() if kind in row.stands)
            hint = did_you_mean(fn, FUNCTIONS, f"in a {kind}: {', '.join(standing)}; or package.module:function")
            self.fault("FEAT005", f"there is no function '{fn}'", hint)
        elif kind not in found.stands:
            places = " and ".join(f"<{place}>" for place in found.stands)
            self.fault("FEAT006", f"'{fn}' may not stand in a {kind}", f"it stands in {places}")
        return found

    def parameters(self, function: Function | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of the function's own attributes and of the kind's common ones."""
        attrs, kind = self.item.attrs, self.item.kind
        own = {p.name: p for p in function.parameters} if function else {}
        common = {p.name: p for p in COMMON[kind]}
        takes_from = function is None or function.inputs[1] > 0
        for name in attrs:
            if name in own or name in common or function is None or (name == "from" and takes_from):
                continue
            known = [*own, *common, *(["from"] if takes_from else [])]
            said = f"a {kind} has no attribute" if any(name == p.name for k in COMMON.values() for p in k) else None
            hint = did_you_mean(name, known, f"it takes {', '.join(known)}")
            self.fault("FEAT004", f"{said or f'{self.item.fn!r} has no attribute'} '{name}'", hint)
        values: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for table, into in zip((own, common), values, strict=True):
            for name, parameter in table.items():
                text = attrs.get(name, parameter.default)
                if name not in attrs and not parameter.default:
                    if parameter.required:
                        self.fault("FEAT003", f"it has no {name}", f"{name}: {parameter.text}")
                    continue
                try:
                    into[name] = parameter.read(text.strip() if name != "sep" else text)
                except ValueError as error:
                    self.fault(parameter.code, f"{name}: {error}", f"{name} takes {parameter.values}")
        return values

    def combinations(self, function: Function, params: Mapping[str, Any], types: list[ValueType]) -> None:
        """What one parameter demands of another."""
        wrong = {
            "pickcat": self._pickcat, "normalize": self._normalize, "clip": self._clip, "bucketize_time": self._time,
        }.get(function.name)  # fmt: skip
        if wrong:
            for code, message, hint in wrong(params, types):
                self.fault(code, message, hint)

    def _pickcat(self, params: Mapping[str, Any], _: list[ValueType]) -> Iterator[tuple[str, str, str]]:
        name = params.get("dict")
        if isinstance(name, str) and name not in self.dicts:
            hint = did_you_mean(name, self.dicts, f'declare it: <dict name="{name}" path="..."/>')
            yield "FEAT015", f"there is no dictionary '{name}'", hint

    def _normalize(self, params: Mapping[str, Any], _: list[ValueType]) -> Iterator[tuple[str, str, str]]:
        zscore = params.get("method", "zscore") == "zscore"
        needed, other = (("mean", "std"), ("min", "max")) if zscore else (("min", "max"), ("mean", "std"))
        method = "zscore" if zscore else "minmax"
        written = [name for name in needed if name in self.item.attrs]
        for name in other:
            if name in self.item.attrs:
                yield "FEAT013", f"{name} has no meaning for method {method}", f"it takes {' and '.join(needed)}"
        if params.get("fit"):
            if written:
                yield "FEAT013", f"both {' and '.join(written)} and fit", "fit learns them: write one or the other"
        elif len(written) < 2:
            missing = " and ".join(name for name in needed if name not in self.item.attrs)
            yield "FEAT003", f"it has no {missing}", 'write the numbers, or fit="true" to learn them'
        elif not zscore and "min" in params and "max" in params and params["min"] >= params["max"]:
            yield "FEAT013", f"min {params['min']:g} is not below max {params['max']:g}", ""

    def _clip(self, params: Mapping[str, Any], _: list[ValueType]) -> Iterator[tuple[str, str, str]]:
        if not ({"min", "max"} & self.item.attrs.keys()):
            yield "FEAT003", "it has neither min nor max", "write one of them or both"
        elif "min" in params and "max" in params and params["min"] > params["max"]:
            yield "FEAT013", f"min {params['min']:g} is above max {params['max']:g}", ""

    def _time(self, params: Mapping[str, Any], types: list[ValueType]) -> Iterator[tuple[str, str, str]]:
        if types and types[0].base in ("integer", "float") and "unit" not in self.item.attrs:
            yield "FEAT013", "its input is a number, and unit is not given", 'unit="s", "ms" or "us" since the epoch'

    # --- inputs ---------------------------------------------------------------------------------------------

    def inputs(self, function: Function | None, params: dict[str, Any]) -> tuple[str, ...]:
        """The names it reads, in order; a formula's become its tree."""
        if function is not None and function.name == "formula":
            try:
                parsed = formula.parse(str(params.get("expr", "0")))
            except formula.FormulaError as error:
                self.fault("FEAT021", f"expr: {error}", error.hint)
                return ()
            params["expr"] = parsed.tree
            return self.known(parsed.names, function)
        text = self.item.attrs.get("from", "")
        try:
            written = names.split(text)
        except ValueError as error:
            self.fault("FEAT013", f"from: {error}")
            return ()
        if function is None:
            return ()
        least, most = function.inputs
        if not least <= len(written) <= most:
            wanted = str(least) if least == most else f"{least} or more"
            if not written:
                self.fault(
                    "FEAT003", "it has no from", f"'{self.item.fn}' reads {wanted} column{'s' * (wanted != '1')}"
                )
            else:
                self.fault(
                    "FEAT022", f"'{self.item.fn}' reads {wanted}, and from has {len(written)}: {' '.join(written)}"
                )
        return self.known(written, function)

    def known(self, written: tuple[str, ...], function: Function) -> tuple[str, ...]:
        for name in dict.fromkeys(written):
            self.faults += self.scope.missing(name, self.item)
            if self.scope.is_slot(name) and not function.slots:
                self.fault(
                    "FEAT011",
                    f"slot '{name}' may not stand in '{self.item.fn}': a slot is keys, not a value",
                    "name the value with <define> and use that here and there; a slot hides a raw column of its name",
                )
        return written

    def input_type(self, name: str, function: Function | None) -> ValueType:
        """The type of an input, faulting one that the function has no meaning for."""
        found = self.scope.type(name)
        if function is None or self.scope.is_slot(name):
            return found
        accepted = function.accepts
        if self.item.kind == "dense" and function.dense_accepts is not None:
            accepted = function.dense_accepts
        if found.within(accepted):
            return found
        hint = f"it takes {', '.join(sorted(accepted - {'null'}))}"
        if found.base in ("float", "decimal") and "float" not in accepted:
            hint = "discretise it first: piecewise gives an index that can be combined and hashed"
            self.fault("FEAT012", f"'{name}' is {found}, which has no exact bytes to hash or look up", hint)
        else:
            self.fault("FEAT012", f"'{name}' is {found}, which '{self.item.fn}' has no meaning for", hint)
        return ValueType("unknown", found.listed)

    def lists(self, function: Function | None, types: list[ValueType]) -> None:
        """Lists where one value is needed."""
        if function is None or not any(type_.listed for type_ in types):
            return
        if function.name == "combine":
            self.fault("FEAT019", "a part of combine is a list", "descartes makes a key for each combination")
        elif function.lists == "never":
            self.fault("FEAT012", f"'{self.item.fn}' takes single values, and an input is a list")
        elif self.item.kind == "dense" and function.lists == "each":
            self.fault("FEAT012", "a dense is one number a row, and its input is a list")

    def weight(self, written: str | None, function: Function | None, types: list[ValueType]) -> Source | None:
        if not written:
            return None
        try:
            (name,) = names.split(written)
        except ValueError:
            self.fault("FEAT020", f"weight names one column, and this is '{written}'")
            return None
        self.faults += self.scope.missing(name, self.item)
        type_ = self.scope.type(name)
        if self.scope.is_slot(name):
            self.fault("FEAT020", f"weight '{name}' is a slot: a weight is a number", "name the column it is made from")
        elif not type_.within(NUMERIC):
            self.fault("FEAT020", f"weight '{name}' is {type_}, not a number")
        elif type_.listed and types and function is not None:
            if function.name in ("combine", "descartes"):
                self.fault("FEAT020", f"weight '{name}' is a list; the weight of a {function.name} is one number")
            elif types[0].listed is False:
                self.fault("FEAT020", f"weight '{name}' is a list, and from is not", "a list weight goes with a list")
        return self.scope.source(name)
