"""`penstock operators`: what is installed, what each takes, and whether a class keeps an operator's promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from penstock.errors import RequestError, did_you_mean


@click.command(epilog="Example:  penstock operators filter")
@click.argument("name", required=False)
@click.option("--conform", metavar="PACKAGE.MODULE:CLASS", help="Run the conformance suite on an operator of your own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def operators(name: str | None, conform: str | None, as_json: bool) -> int:
    """List the installed operators, or show one with its attributes, defaults and an example.

    NAME is a type (filter), or a kind and a type where two share it (output.csv).
    """
    if conform:
        return _conform(conform, as_json)
    if name:
        return _one(name, as_json)
    from penstock.operators.describe import descriptions

    found = list(descriptions())
    if as_json:
        print(json.dumps([d.as_dict() for d in found], ensure_ascii=False))
        return 0
    width = max(len(d.type) for d in found)
    for kind in ("input", "process", "output"):
        print(f"{kind}")
        for each in found:
            if each.kind == kind:
                print(f"  {each.type:<{width}}  {each.summary}")
    print("\nOne of them in full: penstock operators NAME", file=sys.stderr)
    return 0


def _one(name: str, as_json: bool) -> int:
    from penstock.operators.catalog import installed, operator
    from penstock.operators.describe import describe

    known = sorted(installed())
    matches = [key for key in known if name in (key[1], f"{key[0]}.{key[1]}")]
    if not matches:
        names = sorted({t for _, t in known})
        raise RequestError(
            f"there is no operator '{name}'", did_you_mean(name, names, f"operators: {', '.join(names)}")
        )
    found = [describe(operator(*key)) for key in matches]
    if as_json:
        print(json.dumps([d.as_dict() for d in found], ensure_ascii=False))
        return 0
    for number, each in enumerate(found):
        print(f"{chr(10) * bool(number)}{each.kind} {each.type}\n\n{each.text}\n")
        width = max((len(a.name) for a in each.attributes), default=0)
        for attribute in each.attributes:
            kind = f"{attribute.type} {', '.join(attribute.choices)}".strip()
            default = "required" if attribute.required else f"default {attribute.default or 'none'}"
            text = ", or as the element's text" if attribute.is_text else ""
            print(f"  {attribute.name:<{width}}  {kind}; {default}{text}")
            if attribute.description:
                print(f"  {'':<{width}}  {attribute.description}")
        print(f"\nExample:\n  {each.example}\n\nEngines: {', '.join(each.engines)}")
    return 0


def _conform(path: str, as_json: bool) -> int:
    from penstock.operators.catalog import user_operator
    from penstock.operators.conformance import examine

    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    findings = examine(user_operator(path))
    if as_json:
        print(json.dumps([f.as_dict() for f in findings], ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{'ok    ' if finding.kept else 'BROKEN'}  {finding.promise}")
            if not finding.kept:
                print(f"        {finding.message}")
        broken = sum(not f.kept for f in findings)
        print(f"{path}: {len(findings) - broken} of {len(findings)} promises kept")
    return 1 if any(not f.kept for f in findings) else 0
