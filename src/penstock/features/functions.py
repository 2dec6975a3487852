"""The one table of feature functions: where each may stand, what it takes and gives, its parameters.

The checks, the XSD and docs/reference/features.md are all made from it; the kernel computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.features import parameters as p
from penstock.features.model import ItemKind
from penstock.features.parameters import Parameter
from penstock.features.types import (
    HASHABLE,
    INTEGRAL,
    LOOKED_UP,
    NUMERIC,
    TEMPORAL,
    TEXTUAL,
    UNKNOWN,
    Base,
    ValueType,
)

Gives = Callable[[Sequence[ValueType]], ValueType]


@dataclass(frozen=True)
class Function:
    """`lists`: applied to "each" element, takes the "whole" list, or "never" takes one. `inputs`: least and most.

    `accepts` are the basic types of its inputs; `dense_accepts` those where it stands as a dense. `gives` is the type
    of its value in a define. `revision` is raised when the same parameters would map a row differently.
    """

    name: str
    stands: tuple[ItemKind, ...]
    inputs: tuple[int, int]
    accepts: frozenset[Base]
    lists: Literal["each", "whole", "never"]
    gives: Gives
    text: str
    example: str
    parameters: tuple[Parameter, ...] = ()
    slots: bool = False  # whether the keys of an earlier slot may be an input
    dense_accepts: frozenset[Base] | None = None
    revision: int = 1

    def parameter(self, name: str) -> Parameter | None:
        return next((q for q in self.parameters if q.name == name), None)


def _one_number(_: Sequence[ValueType]) -> ValueType:
    return ValueType("float", False)


def _index(inputs: Sequence[ValueType]) -> ValueType:
    return ValueType("integer", inputs[0].listed)


def _one_index(_: Sequence[ValueType]) -> ValueType:
    return ValueType("integer", False)


def _indices(_: Sequence[ValueType]) -> ValueType:
    return ValueType("integer", True)


def _same(inputs: Sequence[ValueType]) -> ValueType:
    return inputs[0]


def _same_listed(inputs: Sequence[ValueType]) -> ValueType:
    return inputs[0].as_list()


def _texts(_: Sequence[ValueType]) -> ValueType:
    return ValueType("text", True)


_BOUNDS = Parameter(
    "bounds", p.bounds, "numbers, or quantile:N", "ascending bounds, or N equally full bins learnt from the data",
    required=True, code="FEAT014",
)  # fmt: skip
_DICT = Parameter(
    "dict", p.dictionary, "a dict's name, or fit:min_count=N",
    "the dictionary, or one learnt from the data: values seen N times or more, most frequent first", required=True,
)  # fmt: skip

_ALL: tuple[Function, ...] = (
    Function(
        "hash", ("slot", "define"), (1, 1), HASHABLE, "each", _index,
        "A key for every value, without a dictionary: the low 52 bits of XXH3-64 over the value's canonical bytes.",
        '<slot name="user" id="1" fn="hash" from="user_id"/>', slots=True,
    ),
    Function(
        "identity", ("slot", "dense", "define"), (1, 1), INTEGRAL, "each", _same,
        "The value itself: an index of 0 to 2^52 - 2 in a slot, a number in a dense.",
        '<slot name="position" id="7" fn="identity" from="position"/>',
        dense_accepts=NUMERIC,
    ),
    Function(
        "pickcat", ("slot", "dense", "define"), (1, 1), LOOKED_UP, "each", _index,
        "The value's index in a dictionary: its line number, from 1. Integers are looked up by their decimal form.",
        '<slot name="cityid" id="2" fn="pickcat" from="city" dict="cities" unknown="0"/>',
        (
            _DICT,
            Parameter("unknown", p.unknown_index, "an index, or skip", "what a value outside the dictionary becomes",
                      default="0"),
        ),
    ),
    Function(
        "piecewise", ("slot", "dense", "define"), (1, 1), NUMERIC, "each", _index,
        "The number of bounds that are not greater than the value: -inf gives 0, +inf the number of bounds.",
        '<slot name="price_b" id="3" fn="piecewise" from="price" bounds="0, 10, 50"/>',
        (_BOUNDS,),
    ),
    Function(
        "bucketize_time", ("slot", "dense", "define"), (1, 1), TEMPORAL, "each", _index,
        "A part of a moment: hour, weekday (Monday is 0), day, month (from 1), hour_of_week (weekday x 24 + hour).",
        '<slot name="hour" id="4" fn="bucketize_time" from="ts" part="hour" tz="Europe/Rome"/>',
        (
            Parameter("part", p.one_of(*p.PARTS), ", ".join(p.PARTS), "which part", required=True),
            Parameter("tz", p.time_zone, "a time zone's name", "where the clock hangs", default="UTC"),
            Parameter("unit", p.one_of(*p.UNITS), "s, ms, us", "what a number counts since the epoch"),
        ),
    ),
    Function(
        "combine", ("slot", "define"), (2, 64), HASHABLE, "never", _one_index,
        "One key for several values together; none where one of them is missing. A slot takes part with its key.",
        '<slot name="cityprice" id="5" fn="combine" from="city price_b"/>', slots=True,
    ),
    Function(
        "descartes", ("slot", "define"), (2, 64), HASHABLE, "whole", _indices,
        "A key for each combination of the parts' elements, the last part fastest; weights are multiplied.",
        '<slot name="tagcity" id="6" fn="descartes" from="tags city"/>',
        (Parameter("max", p.whole(1, 10_000_000), "a whole number", "more keys than this in a row is an error",
                   default="10000"),),
        slots=True,
    ),
    Function(
        "hit", ("slot", "define"), (2, 2), HASHABLE, "whole", _same_listed,
        "The elements of the first list that are also in the second, in order.",
        '<slot name="liked" id="8" fn="hit" from="item_tags user_tags"/>', slots=True,
    ),
    Function(
        "sequence", ("slot", "define"), (1, 1), HASHABLE, "whole", _same_listed,
        "The last `length` elements of a list, in order.",
        '<slot name="clicked" id="9" fn="sequence" from="clicked_items" length="50"/>',
        (Parameter("length", p.whole(1, 1_000_000), "a whole number", "how many elements are kept", required=True),),
        slots=True,
    ),
    Function(
        "multi_hot", ("slot", "define"), (1, 1), HASHABLE, "whole", _same_listed,
        "The distinct elements of a list, in order of first appearance.",
        '<slot name="tagset" id="10" fn="multi_hot" from="tags"/>', slots=True,
    ),
    Function(
        "split", ("define",), (1, 1), TEXTUAL, "whole", _texts,
        "The pieces of a text between separators. The empty text is one empty piece.",
        '<define name="tags" fn="split" from="tags_raw" sep="|"/>',
        (Parameter("sep", p.separator, "text; \\t is a tab", "what stands between the pieces", required=True),),
    ),
    *(
        Function(name, ("dense", "define"), (1, 1), NUMERIC, "never", _one_number, says,
                 f'<dense name="price_{name}" fn="{name}" from="price"/>')
        for name, says in (
            ("log", "The natural logarithm."),
            ("log10", "The logarithm to base 10."),
            ("log1p", "The natural logarithm of one plus the value, exact near 0."),
            ("sqrt", "The square root."),
            ("abs", "The absolute value."),
        )
    ),
    Function(
        "clip", ("dense", "define"), (1, 1), NUMERIC, "never", _one_number,
        "The value, no less than `min` and no more than `max`.",
        '<dense name="price_c" fn="clip" from="price" min="0" max="500"/>',
        (
            Parameter("min", p.number, "a number", "the least; without it there is none"),
            Parameter("max", p.number, "a number", "the most; without it there is none"),
        ),
    ),
    Function(
        "normalize", ("dense", "define"), (1, 1), NUMERIC, "never", _one_number,
        "(x - mean) / std for zscore, (x - min) / (max - min) for minmax; the numbers are given, or learnt by fit.",
        '<dense name="age_z" fn="normalize" from="age" mean="38" std="12"/>',
        (
            Parameter("method", p.one_of("zscore", "minmax"), "zscore, minmax", "which of the two", default="zscore"),
            Parameter("fit", p.flag, "true, false", "learn the numbers from the data", default="false"),
            Parameter("mean", p.number, "a number", "zscore: the mean"),
            Parameter("std", p.positive, "a number above 0", "zscore: the standard deviation"),
            Parameter("min", p.number, "a number", "minmax: what becomes 0"),
            Parameter("max", p.number, "a number", "minmax: what becomes 1"),
        ),
    ),
    Function(
        "formula", ("dense", "define"), (0, 0), NUMERIC, "never", _one_number,
        "Arithmetic over columns and earlier defines and denses.",
        '<dense name="logprice" fn="formula" expr="log10(price + 1)"/>',
        (Parameter("expr", p.text, "an expression", "arithmetic over names", required=True, code="FEAT021"),),
    ),
    Function(
        "overlap", ("dense", "define"), (2, 2), HASHABLE, "whole", _one_number,
        "The number of distinct values that are in both lists.",
        '<dense name="shared" fn="overlap" from="item_tags user_tags"/>', slots=True,
    ),
)  # fmt: skip

FUNCTIONS: dict[str, Function] = {function.name: function for function in _ALL}

#: Attributes that any item of a kind may have, beside its function's own.
COMMON: dict[ItemKind, tuple[Parameter, ...]] = {
    "define": (),
    "slot": (
        Parameter("id", p.whole(1, 2047), "1 to 2047", "the slot's number, its own in the file", required=True,
                  code="FEAT007"),
        Parameter("weight", p.text, "a column", "a number, or a list as long as from's; null or NaN drops the key",
                  code="FEAT020"),
        Parameter("null", p.one_of("none", "key"), "none, key", "key: a missing value gives the slot's null key",
                  default="none"),
    ),
    "dense": (
        Parameter("default", p.number, "a number", "what a missing, infinite or too large result becomes",
                  default="0"),
    ),
}  # fmt: skip

_TAKES = Parameter("takes", p.one_of("f64", "u64"), "f64, u64", "what the function maps; its annotation says else")


def user_function(path: str, takes: str, arity: int) -> Function:
    """The table's row for `package.module:function`."""
    keys = takes == "u64"
    return Function(
        path, ("slot", "dense", "define"), (arity, arity), HASHABLE if keys else NUMERIC,
        "each" if keys and arity == 1 else "never", _index if keys else _one_number,
        "The user's own function.", "", (_TAKES,), slots=keys,
    )  # fmt: skip


#: A user function that could not be imported: only its place is checked.
UNIMPORTED = Function(
    "", ("slot", "dense", "define"), (0, 64), NUMERIC | HASHABLE, "each", lambda _: UNKNOWN, "", "", (_TAKES,),
    slots=True,
)  # fmt: skip
