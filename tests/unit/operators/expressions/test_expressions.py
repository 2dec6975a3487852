"""What the expression language promises its users and its callers, beyond the table of results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Column as SchemaColumn
from penstock.data.schema import Schema
from penstock.operators import expressions as ex
from penstock.operators.expressions.functions import FUNCTIONS, KNOWN_ELSEWHERE, Function
from penstock.operators.expressions.operator_types import OPERATORS
from penstock.operators.expressions.polars_functions import AGGREGATE, SCALAR
from penstock.operators.expressions.reference import page

CLICKS = Schema(
    (
        SchemaColumn("user_id", pa.string(), "kept"),
        SchemaColumn("price", pa.float64()),
        SchemaColumn("n", pa.int32()),
        SchemaColumn("city", pa.string()),
        SchemaColumn("ts", pa.timestamp("us")),
    )
)
REFERENCE = Path(__file__).parents[4] / "docs" / "reference" / "expressions.md"


def faults(text: str, schema: Schema = CLICKS) -> list[tuple[str, str, str]]:
    return [(f.code, f.message, f.hint) for f in ex.check(text, schema)[1]]


# --- messages --------------------------------------------------------------------------------------------------


def test_every_fault_of_an_expression_is_found_at_once_with_its_place() -> None:
    assert faults("prise > 0\n  and n > 'x'\n  and lenght(city) = 2") == [
        ("EXPR010", "there is no column 'prise' (at line 1, character 1)", "did you mean 'price'?"),
        (
            "EXPR013",
            "compares a number with a string (at line 2, character 11)",
            "cast one of them: cast(a as double), cast(a as string)",
        ),
        ("EXPR003", "there is no function 'lenght' (at line 3, character 7)", "did you mean 'length'?"),
    ]


@pytest.mark.parametrize(
    ("text", "code", "message", "hint"),
    [
        ("price > and n > 1", "EXPR001", "something is missing before 'and' (at character 9)", ""),
        ("(price > 0", "EXPR001", "'(' is never closed (at character 1)", "add the missing ')'"),
        ("city = 'it's'", "EXPR001", "the quote ' is never closed (at character 13)", "add '"),
        ("1_000 < n", "EXPR001", "'1_000' is not a number (at character 1)", "numbers are digits"),
        ("price > 0 && n > 1", "EXPR001", "unexpected '&&' (at character 11)", "write `and`"),
        ("`price` > 0", "EXPR001", "unexpected 'price' (at character 2)", "names stand in double quotes"),
        ("a, ", "EXPR001", "unexpected ',' (at character 2)", "remove it"),
        ("nvl(price, 0)", "EXPR003", "there is no function 'nvl' (at character 1)", "here it is called coalesce"),
        ("now() > ts", "EXPR003", "there is no function 'now' (at character 1)", "results must not depend"),
        ('city = "Paris"', "EXPR010", "there is no column 'Paris' (at character 8)", "a string stands"),
        ("ts > '2024-01-01'", "EXPR013", "compares a timestamp with a string (at character 6)", "write timestamp '"),
        ("ts + 1", "EXPR013", "'+' takes numbers, not a timestamp (at character 1)", "use date_add('day', 1, a)"),
        ("if(n, 1, 2)", "EXPR013", "'if' takes a condition, not a bigint (at character 4)", "if(condition bool"),
        ("price > 0 || n > 1", "EXPR013", "'||' takes strings, not a bigint (at character 9)", "|| joins strings"),
        ("cast(n as decimal(9, 2))", "EXPR016", "there are no decimal numbers here (at character 6)", "write"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_fault_that_says_where_and_what_next(text: str, code: str, message: str, hint: str) -> None:
    ((found_code, found_message, found_hint),) = faults(text)
    assert (found_code, found_message) == (code, message)
    assert found_hint.startswith(hint)


def test_an_open_schema_is_silent_about_names_and_types_it_does_not_know() -> None:
    kind, found = ex.check("somewhere > 0 and length(other) < 3 and other + 1 in (a, 'x')", Schema.unknown())
    assert found == ()
    assert kind == pa.bool_()


def test_an_error_knows_its_line_and_column() -> None:
    with pytest.raises(ex.ExpressionError) as caught:
        ex.parse_expression("price > 0\n  and ) 1")
    assert (caught.value.line, caught.value.column, caught.value.code) == (2, 7, "EXPR001")


# --- lists, orders, joins ----------------------------------------------------------------------------------------


def test_a_column_list_names_types_and_keeps_roles_of_what_passes_through() -> None:
    columns, found = ex.check_columns("user_id as u, n, n * 2 as twice, *", Schema(CLICKS.columns[:2]))
    assert [f.code for f in found] == ["EXPR010", "EXPR010"]
    columns, found = ex.check_columns('user_id as "the user", n, n / 2 as half', CLICKS)
    assert found == ()
    assert columns == (
        SchemaColumn("the user", pa.string(), "kept"),
        SchemaColumn("n", pa.int32()),
        SchemaColumn("half", pa.float64()),
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [("price * 2", "EXPR005"), ("price as a, n as a", "EXPR006"), ("*, n as price", "EXPR006"), ("price p", "EXPR001")],
)
def test_a_column_list_needs_one_name_an_entry(text: str, code: str) -> None:
    assert [f.code for f in ex.check_columns(text, CLICKS)[1]] == [code]


def test_an_order_puts_nulls_last_unless_told() -> None:
    assert ex.parse_order("a desc, b, c nulls first, d desc nulls first") == (
        ex.Order(ex.Column("a"), descending=True),
        ex.Order(ex.Column("b")),
        ex.Order(ex.Column("c"), nulls_first=True),
        ex.Order(ex.Column("d"), descending=True, nulls_first=True),
    )


def test_the_scalar_parts_of_a_select_keep_their_qualifiers() -> None:
    text = "select a.x + 1 as y, count(*) as n from a join b on a.id = b.id where b.d = date '2024-01-01' group by a.x"
    select = ex.parse_select(text)
    y, n = (ex.named_from_sqlglot(node, text) for node in select.expressions)
    assert y == ex.Named("y", ex.Call("+", (ex.Column("x", "a"), ex.Literal(1))))
    assert ex.is_aggregate(n.expr)
    where = ex.from_sqlglot(select.args["where"].this, text)
    assert ex.columns_of(where) == (ex.Column("d", "b"),)
    assert ex.replace_columns(where, lambda c: ex.Column(f"{c.name}_{c.table}")).args[0] == ex.Column("d_b")


# --- limits ------------------------------------------------------------------------------------------------------


def test_ten_thousand_alternatives_are_ordinary() -> None:
    text = " or ".join(f"n = {i}" for i in range(3_000))
    frame = pl.LazyFrame({"n": pl.Series([5, 99_999], dtype=pl.Int32)})
    assert frame.filter(ex.to_polars(text, CLICKS)).collect()["n"].to_list() == [5]
    values = ex.to_polars(f"n in ({', '.join(map(str, range(10_000)))})", CLICKS)
    assert frame.filter(values).collect()["n"].to_list() == [5]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5_000 + "n" + ")" * 5_000,
        "-" * 5_000 + "n",
        "not " * 5_000 + "true",
        " - ".join(["n"] * 5_000),
        " + ".join(["n"] * 5_000),
        "length(" * 31 + "n" + ")" * 31 + "+ 1" * 5_000,
        "case " + "when n = 1 then 2 " * 5_000 + "end",
        "case when true then " * 500 + "1" + " end" * 500,
        "n" * 600_000,
    ],
    ids=lambda text: text[:12],
)
def test_what_is_too_deep_is_refused_rather_than_crash(text: str) -> None:
    if text.startswith("--"):
        text = text.replace("-", "- ")  # two dashes would begin a comment
    assert [f[0] for f in faults(text)] == ["EXPR004"]


# --- the table and its page ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda f: f.name)
def test_the_example_of_a_function_gives_what_the_page_says(function: Function) -> None:
    text, expected = function.example
    frame = pl.DataFrame({"x": [1, None, 4, 2]})
    by = () if function.aggregate else None
    expression = ex.to_polars(text, Schema.from_arrow(frame.to_arrow().schema), by=by)
    found = frame.lazy().select(expression).collect().to_series()[0]
    assert found == expected
    assert type(found) is type(expected)


def test_the_reference_page_is_up_to_date() -> None:
    assert REFERENCE.read_text() == page(), f"run python -m penstock.operators.expressions.reference {REFERENCE}"


def test_every_function_has_a_translation_and_every_translation_a_row() -> None:
    assert set(FUNCTIONS) - {"div", "mod"} == set(SCALAR) | set(AGGREGATE)
    assert not set(FUNCTIONS) & set(KNOWN_ELSEWHERE)
    assert not set(OPERATORS) & set(FUNCTIONS) - {"div"}
    assert set(KNOWN_ELSEWHERE.values()) <= set(FUNCTIONS)


# --- aggregates ----------------------------------------------------------------------------------------------------


def test_aggregates_compute_a_value_a_group() -> None:
    frame = pl.DataFrame({"k": ["a", "a", "b"], "x": [1.0, float("nan"), None], "n": [1, 2, 3]})
    schema = Schema.from_arrow(frame.to_arrow().schema)
    columns, found = ex.check_columns("k, max(x) as m, sum(n) / count(*) as r, count(x) as c", schema, by=("k",))
    assert found == ()
    assert [c.type for c in columns[1:]] == [pa.float64(), pa.float64(), pa.int64()]
    built = {
        e.name: ex.to_polars(e.expr, schema, by=("k",)) for e in ex.parse_columns("max(x) as m, sum(n) / count(*) as r")
    }
    rows = frame.lazy().group_by("k").agg(**built).sort("k").collect(engine="streaming").rows()
    assert str(rows) == "[('a', nan, 1.5), ('b', None, 3.0)]"


# --- cost ----------------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_neither_polars_nor_sqlglot() -> None:
    code = (
        "import sys; import penstock.operators.expressions as e; "
        "print('polars' in sys.modules, 'sqlglot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_text_is_parsed_once() -> None:
    assert ex.parse_expression("price * 3 > 17") is ex.parse_expression("price * 3 > 17")
