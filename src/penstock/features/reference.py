"""What is written from the table of functions: docs/reference/features.md and schemas/features.xsd.

`python -m penstock.features.reference ROOT` writes both anew; a test says when they are out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from penstock.features.formula import CALLS
from penstock.features.functions import COMMON, FUNCTIONS, Function
from penstock.features.model import ItemKind
from penstock.features.parameters import Parameter
from penstock.features.parse import NAMESPACE

KINDS: tuple[ItemKind, ...] = ("define", "slot", "dense")

_OPENING = """# Feature files

A feature file (`urn:penstock:features:1`) says how raw columns become features: **slots**, lists of 64-bit keys, and
**dense** numbers, f32. One compiled kernel maps whole tables and single rows by it, bit for bit the same.

```xml
<features xmlns="urn:penstock:features:1" name="ctr" seed="0">
  <dict  name="cities" path="cities.txt"/>
  <define name="tags" fn="split" from="tags_raw" sep="|"/>
  <slot  name="user"  id="1" fn="hash" from="user_id"/>
  <slot  name="city"  id="2" fn="pickcat" from="city" dict="cities"/>
  <dense name="price" fn="formula" expr="log10(price + 1)"/>
</features>
```

A name in `from`, `expr` or `weight` means the define, slot or dense above it, else the raw column; names that are no
identifiers stand in double quotes. A key is `slot id << 52 | value`. Null, missing and NaN give no key; a dense gives
its `default` for them and for what is infinite or too large for f32. Check a file with `penstock features check FILE`,
see what a row becomes with `penstock features explain FILE --row JSON`.

## Elements

| element | attributes |
|---|---|
| `<dict>` | **name**; path (a value a line, gz by suffix, relative to the file) or from (`node.output` of the flow) |
"""


def markdown() -> str:
    """The reference page."""
    parts = [_OPENING]
    for kind in KINDS:
        own = "".join(f"; {_described(p)}" for p in COMMON[kind])
        parts.append(f"| `<{kind}>` | **name**, **fn**, from{own} |\n")
    parts.append("\n## Functions\n\n| function | stands in | reads | what it gives |\n|---|---|---|---|\n")
    parts += [_line(function) for function in FUNCTIONS.values()]
    parts.append("| `package.module:function` | define, slot, dense | 1 to 4 | your own, see below |\n")
    for function in FUNCTIONS.values():
        parts.append(f"\n### {function.name}\n\n{function.text}\n\n")
        if function.parameters:
            parts.append("| attribute | takes | default | meaning |\n|---|---|---|---|\n")
            parts += [_row(parameter) for parameter in function.parameters]
            parts.append("\n")
        parts.append(f"```xml\n{function.example}\n```\n")
    parts.append(_formulas() + _CLOSING)
    return "".join(parts)


def _described(parameter: Parameter) -> str:
    name = f"**{parameter.name}**" if parameter.required else parameter.name
    default = f", default {parameter.default}" if parameter.default else ""
    return f"{name} ({parameter.values}: {parameter.text}{default})"


def _line(function: Function) -> str:
    least, most = function.inputs
    reads = "names in expr" if not most else str(least) if least == most else f"{least} or more"
    return f"| [`{function.name}`](#{function.name}) | {', '.join(function.stands)} | {reads} | {function.text} |\n"


def _row(parameter: Parameter) -> str:
    default = "required" if parameter.required else parameter.default or "-"
    return f"| {parameter.name} | {parameter.values} | {default} | {parameter.text} |\n"


def _formulas() -> str:
    calls = ", ".join(f"`{name}`" for name in sorted(CALLS))
    return f"""
## Formulas

`+ - * / %`, parentheses, numbers, names, and {calls}. Everything is f64; null and NaN spread through every operation,
x / 0 is infinite (and so becomes the dense's default), `%` has the sign of its left side, `round` goes half away from
zero, `pow(x, y)` is the power. A boolean is 0 or 1.
"""


_CLOSING = """
## What is learnt from data

`fit="true"` on normalize, `bounds="quantile:20"` and `dict="fit:min_count=5"` learn from the rows of `fit_from` when
the step runs, and from nothing else. The mean and the standard deviation (of the population) leave out null, NaN and
infinite values; a column that never varies gets the deviation 1. Quantile bound i of N is element ceil(i x n / N) of
the n sorted values, each bound once. A learnt dictionary is ordered by count, then by bytes. The result is the same
however the rows arrive, and travels in the plan: applying a fitted plan elsewhere (`plan=`) learns nothing.

## Your own functions

`fn="package.module:function"` names a Python function that numba compiles: of 1 to 4 floats (NaN is null) giving a
float, or of 1 to 4 u64 keys giving a u64, which is what `int` annotations or `takes="u64"` say. In a slot, a float
result must be an index. The plan holds the name and the SHA-256 of the source, never the source; where the import
differs, loading the plan fails and names the function.
"""


# --- the XSD ------------------------------------------------------------------------------------------------


def xsd() -> str:
    """A schema for editors: every attribute that some function takes. The semantic check is the authority."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="{NAMESPACE}" xmlns="{NAMESPACE}"',
        '           elementFormDefault="qualified">',
        '  <xs:element name="features">',
        "    <xs:complexType>",
        '      <xs:choice minOccurs="0" maxOccurs="unbounded">',
        *(f'        <xs:element name="{name}" type="{name}"/>' for name in ("dict", *KINDS)),
        "      </xs:choice>",
        '      <xs:attribute name="name" type="xs:string" use="required"/>',
        '      <xs:attribute name="seed" type="xs:string"/>',
        '      <xs:attribute name="description" type="xs:string"/>',
        "    </xs:complexType>",
        "  </xs:element>",
        '  <xs:complexType name="dict">',
        '    <xs:attribute name="name" type="xs:string" use="required"/>',
        '    <xs:attribute name="path" type="xs:string"/>',
        '    <xs:attribute name="from" type="xs:string"/>',
        '    <xs:attribute name="description" type="xs:string"/>',
        "  </xs:complexType>",
    ]
    for kind in KINDS:
        lines += _type(kind)
    lines.append("</xs:schema>")
    return "\n".join(lines) + "\n"


def _type(kind: ItemKind) -> Iterator[str]:
    yield f'  <xs:complexType name="{kind}">'
    yield '    <xs:attribute name="name" type="xs:string" use="required"/>'
    yield '    <xs:attribute name="fn" use="required">'
    yield "      <xs:simpleType>"
    yield f'        <xs:union memberTypes="xs:string {kind}-function"/>'
    yield "      </xs:simpleType>"
    yield "    </xs:attribute>"
    yield from _attribute("from", "the columns, defines or slots it reads")
    seen = {"name", "fn", "from", "description"}
    for parameter in COMMON[kind]:
        seen.add(parameter.name)
        yield from _attribute(parameter.name, parameter.text)
    functions = [function for function in FUNCTIONS.values() if kind in function.stands]
    for parameter in (p for function in functions for p in function.parameters):
        if parameter.name not in seen:
            seen.add(parameter.name)
            users = ", ".join(f.name for f in functions if f.parameter(parameter.name))
            yield from _attribute(parameter.name, f"{users}: {parameter.text}")
    yield from _attribute("takes", "your own function: f64 or u64")
    yield '    <xs:attribute name="description" type="xs:string"/>'
    yield "  </xs:complexType>"
    yield f'  <xs:simpleType name="{kind}-function">'
    yield '    <xs:restriction base="xs:string">'
    for function in functions:
        yield f"      <xs:enumeration value={quoteattr(function.name)}/>"
    yield "    </xs:restriction>"
    yield "  </xs:simpleType>"


def _attribute(name: str, text: str) -> Iterator[str]:
    yield f'    <xs:attribute name="{name}" type="xs:string">'
    yield f"      <xs:annotation><xs:documentation>{escape(text)}</xs:documentation></xs:annotation>"
    yield "    </xs:attribute>"


#: path below the repository's root -> what stands there.
WRITTEN = {"docs/reference/features.md": markdown, "schemas/features.xsd": xsd}


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for path, make in WRITTEN.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
