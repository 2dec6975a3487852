"""`penstock table`: look into embedding tables on disk. Each command parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

_PATH = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_ROWS = click.option("--rows", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many keys.")


@click.group(epilog="Example:  penstock table stat out/model")
def table() -> None:
    """Look into embedding tables: a snapshot file, a folder of checkpoints (its newest), or a bundle of a model."""


@table.command("stat")
@click.argument("snapshot", type=_PATH)
@_JSON
def stat_command(snapshot: Path, as_json: bool) -> int:
    """Rows, bytes, rows a slot, and histograms of norms and counts of SNAPSHOT.

    Example:  penstock table stat out/model
    """
    from penstock.training.key_texts import texts_beside
    from penstock.training.table_report import stat
    from penstock.training.table_rows import open_rows
    from penstock.training.table_text import stat_text

    found = stat(open_rows(snapshot), texts_beside(snapshot))
    _print(found, stat_text(found), as_json)
    return 0


@table.command("head")
@click.argument("snapshot", type=_PATH)
@click.option("--by", type=click.Choice(["norm", "count"]), default="norm", show_default=True, help="What is heavy.")
@_ROWS
@click.option("--table", "name", default="", metavar="NAME", help="One table; default: each.")
@_JSON
def head_command(snapshot: Path, by: Literal["norm", "count"], rows: int, name: str, as_json: bool) -> int:
    """The heaviest keys of SNAPSHOT, with what they stand for where the bundle's plan can say.

    Example:  penstock table head out/model --by count --rows 20
    """
    from penstock.training.key_texts import texts_beside
    from penstock.training.table_report import head
    from penstock.training.table_rows import open_rows
    from penstock.training.table_text import head_text

    found = head(open_rows(snapshot), by, rows, name, texts_beside(snapshot))
    _print(found, head_text(found), as_json)
    return 0


@table.command("diff")
@click.argument("first", type=_PATH)
@click.argument("second", type=_PATH)
@_ROWS
@_JSON
def diff_command(first: Path, second: Path, rows: int, as_json: bool) -> int:
    """What changed from FIRST to SECOND: keys that came and went, values that moved, the largest moves.

    Example:  penstock table diff monday/model tuesday/model
    """
    from penstock.training.key_texts import texts_beside
    from penstock.training.table_report import diff
    from penstock.training.table_rows import open_rows
    from penstock.training.table_text import diff_text

    found = diff(open_rows(first), open_rows(second), rows, texts_beside(second))
    _print(found, diff_text(found, str(first), str(second)), as_json)
    return 0


def _print(found: Any, text: str, as_json: bool) -> None:
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else text)
