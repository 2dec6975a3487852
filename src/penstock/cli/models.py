"""`penstock models`: the registry by hand. Each command parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from penstock.registry import Registry

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_REGISTRY = click.option(
    "--registry", metavar="URL", default="", help="A folder or postgresql:// address; default: $PENSTOCK_REGISTRY."
)
_WHY = click.option("--why", default="", help="Recorded with the change.")
_VERSION = click.argument("version", metavar="NAME/NUMBER")


@click.group(epilog="Example:  penstock models ls")
def models() -> None:
    """Models by name: numbered versions, aliases that move between them, and what each was made of."""


@models.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The model; a new name makes a new one.")
@click.option("--alias", "aliases", multiple=True, help="An alias that names the new version; may be repeated.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--notes", default="", help="What a colleague should know of it.")
@click.option("--metrics", "metrics", type=click.Path(path_type=Path), help="A JSON object, as `evaluate` writes it.")
@click.option("--framework", default="", help="onnx lightgbm xgboost sklearn torch keras tensorflow; default: by PATH.")
@click.option("--framework-version", default="", help="The version that made the model; recorded.")
@click.option(
    "--rows", type=click.Path(path_type=Path), help="Rows to prove a foreign model with (.parquet .csv .npy)."
)
@click.option("--tolerance", type=click.FloatRange(0), default=0.0, help="Absolute; default 1e-5 + 1e-4 |score|.")
@click.option("--unproven", is_flag=True, help="Let it in whatever the proof finds; recorded in the version.")
@click.option("--trust-pickle", is_flag=True, help="Open a pickle: it runs whatever program it holds.")
@click.option("--factory", default="", metavar="MODULE:FUNCTION", help="Makes the module of a PyTorch state dict.")
@click.option("--blobs", default="", metavar="URL", help="Where a new registry keeps files; asked once.")
@_REGISTRY
@_JSON
def push(
    path: Path, name: str, aliases: tuple[str, ...], tags: tuple[str, ...], notes: str, metrics: Path | None,
    framework: str, framework_version: str, rows: Path | None, tolerance: float, unproven: bool, trust_pickle: bool,
    factory: str, blobs: str, registry: str, as_json: bool,
) -> None:  # fmt: skip
    """Store the model at PATH as the next version of NAME: a bundle's folder, or another framework's file.

    Foreign models are converted and proved: what would be served must score --rows (and awkward rows that are added)
    as the original does.

    Example:  penstock models push out/model --name ctr --alias live --metrics out/metrics.json
    """
    from penstock.registry.arriving import arriving
    from penstock.registry.converting.request import Request
    from penstock.registry.pushing import parse_tags, read_metrics
    from penstock.registry.telling import proof_line

    said, judged = parse_tags(tags), read_metrics(metrics) if metrics else {}
    request = Request(
        str(path), framework, "", framework_version=framework_version, tolerance=tolerance, unproven=unproven,
        trust_pickle=trust_pickle, factory=factory, code_folder=str(Path.cwd()),
    )  # fmt: skip
    with arriving(request, rows) as (folder, proof), _opened(registry, blobs) as opened:
        version = opened.push(folder, name, aliases=aliases, tags=said, metrics=judged, notes=notes, proof=proof)
    text = f"{version.uri}  {version.digest[:12]}  {version.size_bytes:,} bytes"
    shown = f"{text}\nproof: {proof_line(proof)}" if proof else text
    _print({**version.as_dict(), "proof": dict(version.proof)}, shown, as_json)


@models.command("ls")
@click.argument("name", default="")
@_REGISTRY
@_JSON
def ls(name: str, registry: str, as_json: bool) -> None:
    """Every model, or every version of NAME, newest first.

    Example:  penstock models ls ctr
    """
    from penstock.registry.telling import listing

    with _opened(registry) as opened:
        found = opened.list_versions(name)
    _print([v.as_dict() for v in found], listing(found), as_json)


@models.command()
@click.argument("version", metavar="NAME[@ALIAS|/NUMBER]")
@_REGISTRY
@_JSON
def show(version: str, registry: str, as_json: bool) -> None:
    """Everything about a version: metrics, lineage, signature, proof; and every move of the model's aliases.

    Example:  penstock models show ctr@live
    """
    from penstock.registry.telling import card, document

    with _opened(registry) as opened:
        found, moves = opened.describe(opened.newest(version) if "@" not in version and "/" not in version else version)
    _print(document(found, moves), card(found, moves), as_json)


@models.command()
@_VERSION
@click.argument("alias", required=False, default="")
@click.option("--delete", default="", metavar="ALIAS", help="Take ALIAS away from the model instead.")
@_WHY
@_REGISTRY
@_JSON
def alias(version: str, alias: str, delete: str, why: str, registry: str, as_json: bool) -> None:
    """Let ALIAS name the version NAME/NUMBER (or NAME@OTHER-ALIAS); it moves if it named another one.

    Example:  penstock models alias ctr/4 live --why "won the test of last week"
    """
    if bool(alias) == bool(delete):
        raise click.UsageError("give an ALIAS to set, or --delete ALIAS")
    with _opened(registry) as opened:
        if delete:
            model = version.removeprefix("models:/").partition("/")[0].partition("@")[0]
            opened.drop_alias(model, delete, why)
            _print({"name": model, "alias": delete, "version": None}, f"{model}@{delete} is gone", as_json)
            return
        found = opened.alias(version, alias, why)
    _print(
        {"name": found.name, "alias": alias, "version": found.number}, f"{found.name}@{alias} -> {found.uri}", as_json
    )


@models.command()
@click.argument("name")
@click.option("--alias", "alias", default="live", show_default=True, help="The alias that goes back.")
@click.option(
    "--to", "number", type=click.IntRange(1), default=None, help="To this earlier version; default: the last."
)
@_WHY
@_REGISTRY
@_JSON
def rollback(name: str, alias: str, number: int | None, why: str, registry: str, as_json: bool) -> None:
    """Return an alias of NAME to an earlier version.

    Example:  penstock models rollback ctr --why "clicks fell by a fifth"
    """
    with _opened(registry) as opened:
        found = opened.rollback(name, alias, number or 0, why)
    _print({"name": name, "alias": alias, "version": found.number}, f"{name}@{alias} -> {found.uri}", as_json)


@models.command()
@_VERSION
@click.option("--why", default="by hand", show_default=True, help="Shown wherever the pin keeps the version.")
@click.option("--remove", is_flag=True, help="Let gc have it again.")
@_REGISTRY
@_JSON
def pin(version: str, why: str, remove: bool, registry: str, as_json: bool) -> None:
    """Keep a version from gc for good.

    Example:  penstock models pin ctr/4 --why "the audit of 2026"
    """
    with _opened(registry) as opened:
        found = opened.pin(version, "" if remove else why)
    _print(found.as_dict(), f"{found.uri} is {'pinned: ' + found.pinned if found.pinned else 'not pinned'}", as_json)


@models.command()
@click.option("--yes", is_flag=True, help="Do it; without it gc only says what it would do.")
@click.option("--keep", type=click.IntRange(1), default=5, show_default=True, help="Newest versions kept of a model.")
@click.option(
    "--grace-days", type=click.FloatRange(0), default=7.0, show_default=True,
    help="How long a version lies with a tombstone before its files go.",
)  # fmt: skip
@_REGISTRY
@_JSON
def gc(yes: bool, keep: int, grace_days: float, registry: str, as_json: bool) -> None:
    """Remove the files of versions that nothing refers to. Says what it would do unless told --yes.

    Kept: what aliases name or go back to, pins, what running hosts and loops hold, the newest of each model, and
    what kept versions were trained on from.

    Example:  penstock models gc --keep 10 --yes
    """
    from penstock.registry.sweep import DAY_S, Policy
    from penstock.registry.telling import swept

    with _opened(registry) as opened:
        found = opened.gc(Policy(keep, grace_days * DAY_S), dry_run=not yes)
    _print(found.as_dict(), swept(found), as_json)


@models.command()
@click.argument("first", metavar="NAME/NUMBER")
@click.argument("second", metavar="NAME/NUMBER")
@_REGISTRY
@_JSON
def diff(first: str, second: str, registry: str, as_json: bool) -> None:
    """What changed from one version to another: metrics, signature, plan, parameters, size.

    Example:  penstock models diff ctr@live ctr/5
    """
    from penstock.registry.comparison import diff as compared
    from penstock.registry.comparison import diff_text

    with _opened(registry) as opened:
        found = compared(opened.describe(first)[0], opened.describe(second)[0])
    _print(found, diff_text(found), as_json)


@models.command("export")
@_VERSION
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: NAME-NUMBER.tar here.")
@click.option("--key", type=click.Path(path_type=Path), help="An ed25519 key to sign with; default: your own.")
@_REGISTRY
@_JSON
def export_command(version: str, output: Path | None, key: Path | None, registry: str, as_json: bool) -> None:
    """Write a version as one signed archive.

    Example:  penstock models export ctr@live -o ctr.tar
    """
    with _opened(registry) as opened:
        found = opened.resolve(version)
        target = output or Path(f"{found.name}-{found.number}.tar")
        opened.export(found.uri, target, key)
    size = target.stat().st_size
    _print({**found.as_dict(), "path": str(target), "bytes": size}, f"{target}  {size:,} bytes", as_json)


@models.command("import")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Under another name.")
@click.option("--alias", "aliases", multiple=True, help="An alias that names the new version; may be repeated.")
@click.option("--key", type=click.Path(path_type=Path), help="Trust this public key alone; default: *.pub of yours.")
@_REGISTRY
@_JSON
def import_command(
    archive: Path, name: str, aliases: tuple[str, ...], key: Path | None, registry: str, as_json: bool
) -> None:
    """Push what a signed archive holds, once its signature is verified.

    Example:  penstock models import ctr.tar --key colleague.pub
    """
    with _opened(registry) as opened:
        found = opened.import_(archive, name, key, aliases)
    signed = found.lineage["imported"]["signed_by"]
    _print(found.as_dict(), f"{found.uri}  {found.digest[:12]}  signed by {signed}", as_json)


def _opened(registry: str, blobs: str = "") -> Registry:
    from penstock.registry import Registry

    return Registry(registry or None, blobs or None)


def _print(found: Any, text: str, as_json: bool) -> None:
    click.echo(json.dumps(found, ensure_ascii=False, default=str) if as_json else text)
