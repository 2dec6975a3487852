"""Lists of names, and names that are no identifiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.csv_files import expand_names, parse_types
from penstock.data.names import spelled, split_names, unquoted


def test_spaces_and_commas_separate_and_quotes_hold() -> None:
    assert split_names('a, b  "unit price",c "x,y" "say ""hi"""') == ("a", "b", "unit price", "c", "x,y", 'say "hi"')
    assert split_names(" , ") == ()


@pytest.mark.parametrize(("text", "said"), [('a "b c', "never closed"), ('"a"b', "follows the closing quote")])
def test_a_quote_that_is_not_closed_well_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split_names(text)
    with pytest.raises(ValueError, match=said):
        expand_names(text)


@given(st.lists(st.text(min_size=1)))
def test_what_is_spelled_reads_back(names: list[str]) -> None:
    assert split_names(" ".join(map(spelled, names))) == tuple(names)
    assert [unquoted(spelled(name)) for name in names] == names


def test_dots_in_quotes_are_no_range_and_colons_in_quotes_no_type() -> None:
    assert expand_names('label I1..I3 "a..b"') == ("label", "I1", "I2", "I3", "a..b")
    assert parse_types('I*:int "unit price":float, "a:b":str') == (
        ("I*", "int"),
        ("unit price", "float"),
        ("a:b", "str"),
    )
    with pytest.raises(ValueError, match="not of the form"):
        parse_types('"unit price" int:int')
