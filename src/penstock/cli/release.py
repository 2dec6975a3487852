"""`penstock release`: canaries, shadows, promotions and rollbacks of what a host serves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from penstock.errors import PenstockError, RequestError

VERBS = ("promote", "rollback", "status")


@click.command(
    epilog="Example:  penstock release ctr/5 --canary 10 --sticky user_id && penstock release promote ctr",
    context_settings={"ignore_unknown_options": False},
)
@click.argument("words", nargs=-1, required=True, metavar="NAME/VERSION | promote NAME | rollback NAME | status [NAME]")
@click.option("--canary", type=float, metavar="PERCENT", help="Give the version so much of live's traffic.")
@click.option("--sticky", default="", metavar="COLUMN", help="The input whose value decides who gets which version.")
@click.option("--shadow", is_flag=True, help="Let it score what live answers; nobody sees its replies.")
@click.option("--why", default="", help="With rollback: for the history.")
@click.option("--config", type=click.Path(path_type=Path), help="The host's configuration; found by the model's name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def release(
    words: tuple[str, ...], canary: float | None, sticky: str, shadow: bool, why: str, config: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Change which version of a model answers, without touching the configuration, and see what came of it.

    VERSION is a label of the configuration, or a version of the registry (models:/NAME/VERSION). `status` alone tells
    of every model that a host of this machine serves.
    """
    from penstock.serving.hosts import config_of, running_hosts
    from penstock.serving.releases import open_releases

    if words == ("status",):
        hosts = [config] if config is not None else [path for path, _ in running_hosts()]
        opened = [open_releases(path) for path in hosts]
        every = [each.status(name) for each in opened for name in each.config.blocks]
        none = "no host runs on this machine; `penstock serve CONFIG` starts one"
        text = "\n\n".join(_table(one) for one in every) or none
        click.echo(json.dumps(every, indent=1) if as_json else text)
        return 0
    verb, name, version = _words(words)
    releases = open_releases(config if config is not None else config_of(name))
    if verb == "status":
        found = releases.status(name)
        click.echo(json.dumps(found, indent=1) if as_json else _table(found))
        return 0
    if verb == "promote":
        outcome = releases.promote(name)
    elif verb == "rollback":
        outcome = releases.rollback(name, why)
    else:
        outcome = releases.release(name, version, canary, sticky, shadow)
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=1))
    if outcome.refused:
        raise PenstockError(f"the host refused it: {outcome.refused}", "what served before still does", "SERV012")
    if not as_json:
        shares = ", ".join(f"{label} {share:g} %" for label, share in outcome.release.traffic.items() if share)
        shares += "".join(f", shadow {label}" for label in outcome.release.shadow)
        later = "" if outcome.applied else " (no host runs: taken up when it starts)"
        click.echo(f"{name}: {shares}{later}")
    return 0


def _words(words: tuple[str, ...]) -> tuple[str, str, str]:
    """(verb or "", name, version)."""
    if words[0] in VERBS:
        if len(words) != 2:
            raise RequestError(f"`penstock release {words[0]}` takes one model's name", f"release {words[0]} ctr")
        return words[0], words[1], ""
    name, slash, version = words[0].partition("/")
    if len(words) != 1 or not slash or not name or not version:
        raise RequestError(f"'{' '.join(words)}' is not NAME/VERSION", "penstock release ctr/5 --canary 10")
    return "", name, version


def _table(status: dict[str, Any]) -> str:
    host = status["host"]
    where = f"http {host['http']}, grpc {host['grpc']}, {'ready' if host['ready'] else 'NOT READY'}" if host else "none"
    lines = [f"model    {status['model']}", f"host     {where}"]
    if status["sticky"]:
        lines.append(f"sticky   {status['sticky']}")
    since = status["released"]
    lines.append(f"split    by a release since {_utc(since)}, not by the file" if since else "split    by the file")
    versions = status["versions"]
    wide = max(7, *(len(v["version"]) for v in versions))
    counts = ("requests", "failed", "late", "busy", "waiting")
    head = f"{'version':<{wide}}  {'role':<10}  percent  {'state':<9}" + "".join(f"  {name:>8}" for name in counts)
    lines.append(f"\n{head}  {'bundle':<12}  reference")
    for v in versions:
        meant = v["fixed"] not in ("", v["reference"]) and v["reference"].startswith("models:/")
        named = f" = {v['fixed'].removeprefix('models:/')}" if meant else ""
        row = f"{v['version']:<{wide}}  {v['role']:<10}  {v['percent']:>7g}  {v['state']:<9}"
        row += "".join(f"  {v[name]:>8,}" if host else f"  {'-':>8}" for name in counts)
        lines.append(f"{row}  {v['bundle'][:12]:<12}  {v['reference']}{named}")
        if v["reason"]:
            lines.append(f"{'':<{wide}}  {v['reason']}")
        if v["watched"]:
            lines.append(f"{'':<{wide}}  guarded: {_watched(v['watched'])}")
    if status["changes"]:
        lines.append("\nlast changes")
    for change in status["changes"]:
        why = f": {change['why']}" if change["why"] else ""
        lines.append(f"  {_utc(change['time'])}  {change['what']} by {change['who']}{why}")
    return "\n".join(lines)


def _watched(seen: dict[str, int]) -> str:
    def share(failed: int, of: int) -> str:
        return f"{failed:,} of {of:,} failed" + (f" ({100 * failed / of:.2g} %)" if failed else "")

    beside = share(seen["live_failed"], seen["live_requests"])
    return f"{share(seen['failed'], seen['requests'])}; live beside it: {beside}"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
