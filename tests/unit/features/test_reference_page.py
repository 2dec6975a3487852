"""The reference page and the XSD are what the table of functions says."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from penstock.features.functions import FUNCTIONS
from penstock.features.reference import WRITTEN, xsd

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("path", sorted(WRITTEN))
def test_the_written_file_is_current(path: str) -> None:
    said = "run: python -m penstock.features.reference ."
    assert (ROOT / path).read_text(encoding="utf-8") == WRITTEN[path](), said


def test_the_xsd_takes_every_example_of_the_table() -> None:
    schema = etree.XMLSchema(etree.fromstring(xsd().encode()))
    body = "".join(function.example for function in FUNCTIONS.values())
    text = f'<features xmlns="urn:penstock:features:1" name="all"><dict name="cities" path="c"/>{body}</features>'
    schema.assertValid(etree.fromstring(text))
