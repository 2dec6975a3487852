"""`penstock features ls|show|materialise`: feature views. Each command parses, calls one function, prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from penstock.features.views.materialise import Written

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_PLACES = click.option(
    "--in", "places", multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Where views are declared; default: this folder and those in it.",
)  # fmt: skip
_REGISTRY = click.option(
    "--registry", default="", metavar="URL", help="Whose models are looked through; default: yours."
)


@click.command("ls")
@_PLACES
@_REGISTRY
@_JSON
def ls(places: tuple[Path, ...], registry: str, as_json: bool) -> None:
    """Every feature view: whose it is, what it gives, which models read it.

    Example:  penstock features ls --in features/
    """
    from penstock.features.commands import aligned
    from penstock.features.views import listing

    readers = _readers(registry)
    found = [
        listing.described(file, view, readers) for file in listing.find(_places(places)) for view in file.views.values()
    ]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    rows = [
        (f["view"], f["entity"], f["owner"] or "-", str(len(f["outputs"])), " ".join(f["models"]) or "-", f["source"])
        for f in found
    ]
    click.echo(aligned([("view", "entity", "owner", "outputs", "models", "source"), *rows]) if rows else "no views")


@click.command("show")
@click.argument("view")
@_PLACES
@_REGISTRY
@_JSON
def show(view: str, places: tuple[Path, ...], registry: str, as_json: bool) -> None:
    """A feature VIEW: source, columns, windows, and which models read which of its columns.

    Example:  penstock features show user_clicks
    """
    from penstock.features.commands import aligned
    from penstock.features.views import listing

    files = listing.find(_places(places))
    declared = listing.one(files, view)
    file = next(file for file in files if declared in file.views.values())
    found = listing.described(file, declared, _readers(registry))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    ttl = f"{found['ttl_s']:g} s" if found["ttl_s"] else "none"
    facts = [
        (found["view"], found["description"] or "-"), ("declared", f"{found['file']}:{found['line']}"),
        ("owner", found["owner"] or "-"), ("entity", f"{found['entity']} ({', '.join(found['keys'])})"),
        ("source", found["source"]), ("ttl", ttl),
    ]  # fmt: skip
    click.echo(aligned(facts))
    click.echo()
    outputs = [(o["name"], o["type"], o["function"], o["from"] or "-", _window(o)) for o in found["outputs"]]
    click.echo(aligned([("output", "type", "function", "from", "window"), *outputs]))
    click.echo()
    models = [(model, " ".join(columns)) for model, columns in found["models"].items()]
    click.echo(aligned([("model", "reads"), *models]) if models else "no model of the registry reads it")


@click.command("materialise")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("views", nargs=-1)
@click.option("--to", "address", required=True, metavar="STORE", help="lmdb:PATH or redis://HOST:PORT/DB.")
@click.option("--follow", is_flag=True, help="Go on as events come, until it is stopped; one view a process.")
@click.option("--anew", is_flag=True, help="Empty the views there and read their sources from the start.")
@_JSON
def materialise(file: Path, views: tuple[str, ...], address: str, follow: bool, anew: bool, as_json: bool) -> None:
    """Write the VIEWS of a FILE (default: all) into an online store, from where it stands.

    Events, position and what is served are one transaction: stopped at any instant, it goes on from there.

    Example:  penstock features materialise views.xml --to lmdb:online
    """
    from penstock.errors import RequestError
    from penstock.features.views import OnlineStore, read
    from penstock.features.views.materialise import materialise as written_to

    declared = read(file)
    chosen = [declared.view(name) for name in views or declared.views]
    if follow and len(chosen) != 1:
        raise RequestError(
            f"--follow takes one view, and these are {len(chosen)}", "name it; a process each", "VIEW028"
        )
    store = OnlineStore(address, create=True)
    done = []
    for view in chosen:
        done.append(written_to(store, view, anew=anew, follow=follow, told=_told))
        if sys.stderr.isatty():
            click.echo("", err=True)
    if as_json:
        click.echo(json.dumps([written.document() for written in done]))
        return
    for written in done:
        click.echo(f"{written.view}: {_line(written)}")


@click.command("skew")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--rows", default=100_000, show_default=True, help="Lines of the log that are compared, from its start.")
@click.option("--store", default="", help="The store that served: it knows in which order its files came.")
@_JSON
def skew(file: Path, log: Path, rows: int, store: str, as_json: bool) -> int:
    """Compare what a host served (its sample LOG) with what the views of FILE tell offline; 1 where they differ.

    Each row is worked out again as of the time that was logged: from all events that are known today, and from those
    that the store had. Without --store files are taken to have come in the order of their names.

    Example:  penstock features skew views.xml samples.jsonl --store lmdb:online
    """
    from penstock.features.commands import aligned
    from penstock.features.views import OnlineStore, read
    from penstock.features.views.skew import causes, compare, lines_of
    from penstock.features.views.sources import read_files

    views = read(file).views
    known = OnlineStore(store).views() if store else {}
    orders = {name: read_files(stored.position) for name, stored in known.items() if name in views}
    found = compare(list(views.values()), lines_of(log, rows), orders)
    differ = any(column.differ for column in found)
    if as_json:
        document = {"columns": [column.document() for column in found], "causes": causes(found)}
        click.echo(json.dumps(document, ensure_ascii=False))
        return int(differ)
    shown = [
        (c.view, c.column, str(c.rows), str(c.differ), f"{c.share:.2%}", str(c.differ_at_position),
         ", ".join(f"{cause} {count}" for cause, count in c.causes.items()) or "-")
        for c in found
    ]  # fmt: skip
    head = ("view", "column", "rows", "differ", "share", "at position", "likely cause")
    click.echo(aligned([head, *shown]) if shown else "no line of the log names a view of the file")
    for c in found:
        for example in c.examples:
            click.echo(f"{c.view}.{c.column}: {json.dumps(example, ensure_ascii=False)}")
    if not store and any(c.differ_at_position and not views[c.view].source.topic for c in found):
        click.echo("hint: did the files come in another order than that of their names? --store ADDRESS says", err=True)
    return int(differ)


def _line(written: Written) -> str:
    told = [f"{written.events:,} events in {written.seconds:.1f} s"]
    told += [f"{written.refused:,} refused"] if written.refused else []
    told += [f"{written.keyless:,} without key or time"] if written.keyless else []
    return ", ".join(told)


def _told(written: Written) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{written.view}: {_line(written)}", err=True, nl=False)


def _places(given: Sequence[Path]) -> list[Path]:
    return list(given) or [Path()]


def _window(output: Mapping[str, Any]) -> str:
    if "window" not in output:
        return "-"
    every = f" every {output['every_s']:g} s" if output["window"] == "sliding" else ""
    return f"{output['window']} {output['size_s']:g} s{every}"


def _readers(url: str) -> dict[str, list[str]]:
    """The newest version of each model, and the raw columns that it reads."""
    from penstock.errors import PenstockError
    from penstock.registry import Registry

    newest: dict[str, list[str]] = {}
    try:
        with Registry(url or None) as registry:
            for version in registry.list_versions():
                name = f"{version.name}/{version.number}"
                if all(other.partition("/")[0] != version.name for other in newest):
                    newest[name] = [column["name"] for column in version.signature.get("inputs", [])]
    except PenstockError as error:
        if url or error.code != "REG005":  # who has no registry has no models
            raise
    return newest
