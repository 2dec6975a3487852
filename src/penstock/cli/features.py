"""`penstock features`: feature files and feature views. Each command parses, calls one function, prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from penstock.cli.feature_views import ls, materialise, show, skew
from penstock.errors import Problem, ProblemsFound, RequestError

_FILE = click.Path(path_type=Path)
_SETTINGS = click.option("--set", "settings", multiple=True, metavar="K=V", help="A value for ${K} in the file.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(epilog="Example:  penstock features check features.xml")
def features() -> None:
    """Check, apply and explain feature files; list, materialise and compare feature views."""


features.add_command(ls)
features.add_command(show)
features.add_command(materialise)
features.add_command(skew)


@features.command("check")
@click.argument("file", type=_FILE)
@click.option("--columns", "data", type=str, help="A data file whose columns the feature file reads.")
@_SETTINGS
@_JSON
def check_command(file: Path, data: str | None, settings: tuple[str, ...], as_json: bool) -> int:
    """Find every problem of a feature FILE, or a file of views, at once; nothing is read but the file, its
    dictionaries and the headers of sources.

    Example:  penstock features check features.xml --columns clicks.parquet
    """
    from penstock.features.commands import check_file

    problems = check_file(file, data, _values(settings))
    if as_json:
        click.echo(json.dumps([problem.as_dict() for problem in problems], ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        if not problems:
            click.echo(f"{file}: no problems")
    return 2 if any(problem.severity == "error" for problem in problems) else 0


@features.command("apply")
@click.argument("file", type=_FILE)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--keep", default="", metavar="COLUMNS", help="Raw columns to carry along.")
@click.option("--form", type=click.Choice(["slots", "flat"]), default="slots", show_default=True)
@click.option("--fit-from", default="", metavar="DATA", help="The rows that fitted functions learn from; default: IN.")
@click.option("--plan", default="", metavar="BUNDLE", help="Apply the fitted plan of a bundle; FILE is then only read.")
@_SETTINGS
@_JSON
def apply_command(
    file: Path,
    source: str,
    target: str,
    keep: str,
    form: str,
    fit_from: str,
    plan: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Map the rows of IN by a feature FILE into OUT; formats by suffix: parquet, csv, json, libsvm.

    Example:  penstock features apply features.xml clicks.parquet mapped.parquet --keep "label user_id"
    """
    from penstock.features.commands import apply_file

    result = apply_file(file, source, target, keep, form, fit_from, plan, _values(settings), _Progress())
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{result['rows']:,} rows in {result['seconds']:.2f} s -> {target}")
    return 0


@features.command("explain")
@click.argument("file", type=_FILE)
@click.option("--row", required=True, metavar="JSON", help='One row, as {"column": value, ...}; - reads it from stdin.')
@click.option("--plan", default="", metavar="BUNDLE", help="Explain the fitted plan of a bundle instead of FILE's own.")
@_SETTINGS
@_JSON
def explain_command(file: Path, row: str, plan: str, settings: tuple[str, ...], as_json: bool) -> int:
    """Show what one row becomes, key by key.

    Example:  penstock features explain features.xml --row '{"user_id": "u1", "price": 12.5}'
    """
    from penstock.features.commands import explain_row, table

    found = explain_row(file, _row(sys.stdin.read() if row == "-" else row), plan, _values(settings))
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else table(found))
    return 0


def _values(settings: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise RequestError(f"--set takes K=V, and this is '{setting}'")
        values[key] = value
    return values


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise RequestError(
            f"--row is not JSON: {error}", """quote it for the shell: --row '{"city": "Rome"}'"""
        ) from None
    if not isinstance(row, dict):
        raise RequestError("--row is not a JSON object", 'write {"column": value, ...}')
    return row


class _Progress:
    """Rows so far, on one line of a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self.shown = False

    def progress(self, step: str, message: str = "", rows: int = 0, done: int = 0, total: int = 0) -> None:
        if sys.stderr.isatty() and (message or rows):
            click.echo(f"\r\033[K{message or f'{rows:,} rows'}", err=True, nl=False)
            self.shown = True

    def log(self, message: str) -> None:
        click.echo(message, err=True)

    def close(self) -> None:
        if self.shown:
            click.echo("\r\033[K", err=True, nl=False)


__all__ = ["Problem", "ProblemsFound", "features"]
