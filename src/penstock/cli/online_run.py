"""`penstock online run|rollback|switch|status`: a model that learns from a topic, the way back, the way over."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import click

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.command(epilog="Example:  penstock online run loop.toml --from 2026-11-22T08:00:00Z")
@_FILE
@click.option("--from", "begin", default="", help="start, end, a time or an offset; without checkpoints alone.")
@click.option("--take-over", is_flag=True, help="Fence off whoever trains this model now, even while its lease lives.")
@click.option("--check", is_flag=True, help="Only check the file.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON document, at the end.")
def run(file: Path, begin: str, take_over: bool, check: bool, as_json: bool) -> int:
    """Train the model that FILE (TOML) names on its topic of samples, until SIGTERM.

    Samples are learnt from in the order of their time. Killed at any instant, it goes on from its newest checkpoint:
    every sample has acted once. Log lines go to stderr. Exit 0 after SIGTERM; 1: an input or the registry failed, or
    another trainer took over; 2: the file or the request cannot be. docs/online-training.md has the settings.
    """
    from penstock.training.live import settings

    read = settings.read(file)
    if check:
        click.echo("[]" if as_json else f"ok: {read.document.model.name}")
        return 0
    from penstock.training.live.run import Loop, stopped_by_signals

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    loop = Loop(read, begin=begin, take_over=take_over)
    stopped_by_signals(loop)
    done = loop.run()
    if as_json:
        click.echo(json.dumps(done, indent=1))
    return 0


@click.command(epilog="Example:  penstock online rollback loop.toml --to 41 --skip")
@_FILE
@click.option("--to", default="", help="The version to go back to; default: the newest that proved good.")
@click.option("--replay/--skip", default=True, help="Learn again from all samples since (default), or leave them out.")
@click.option("--take-over", is_flag=True, help="Fence off the trainer that runs now; start it again afterwards.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON document.")
def rollback(file: Path, to: str, replay: bool, take_over: bool, as_json: bool) -> int:
    """Let the next run of FILE begin with an earlier version of its loop, as a new generation.

    Versions are what [bases] made: each pins a bundle in the registry, a checkpoint and positions. A trainer that runs
    is refused everything from then on. With --skip the samples since are left out: the gap is recorded and counted.
    """
    from penstock.training.live import settings
    from penstock.training.live.rollback import roll_back

    done = roll_back(settings.read(file), to=to, skip=not replay, take_over=take_over)
    if as_json:
        click.echo(json.dumps(done, indent=1))
    else:
        left = f", leaving out {done['gap']:,} records" if done["skip"] else ", from which it learns again"
        said = f"{done['version']}, {done['samples']:,} samples{left}: start `penstock online run` now"
        click.echo(f"generation {done['generation']} of {done['model']} begins with {said}")
    return 0


@click.command(epilog="Example:  penstock online switch loop-2.toml")
@_FILE
@click.option("--to", default="", help="A version of this loop; default: the newest that proved good.")
@click.option("--alias", default="", help="The alias that hosts serve; default: that of [bases].")
@click.option("--json", "as_json", is_flag=True, help="What was done, as one JSON document.")
def switch(file: Path, to: str, alias: str, as_json: bool) -> int:
    """Let an alias go over to the loop of FILE, whose chain hosts then follow.

    For a second loop of one model, with other features say, that has learnt beside the first: refused until it has
    caught up (LIVE012) and a version of it has proved good (LIVE009). From then on the alias goes along with its
    versions, and the first loop no longer moves it. Switching back is the same command with the first loop's file.
    """
    from penstock.training.live import settings
    from penstock.training.live.switching import switch as switch_over

    done = switch_over(settings.read(file), to=to, alias=alias)
    if as_json:
        click.echo(json.dumps(done, indent=1))
        return 0
    before = f", before {done['before']} of chain '{done['chain_before']}'" if done["before"] else ""
    click.echo(f"models:/{done['model']}@{done['alias']} is {done['version']} of chain '{done['chain']}'{before}")
    if not done["trained"]:
        click.echo("nobody trains that chain at present: start its `penstock online run`", err=True)
    return 0


@click.command(epilog="Example:  penstock online status loop.toml")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def status(file: Path, as_json: bool) -> int:
    """Say who trains the model of FILE, and which versions its loop can go back to."""
    from penstock.training.live import rollback as back
    from penstock.training.live import settings

    found = back.status(settings.read(file))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return 0
    left = found["lease_until"] - time.time()
    who = f"trained by {found['owner']}" if left > 0 else "nobody trains it"
    click.echo(f"{found['model']}: generation {found['generation']}, {who}")
    for version in found["versions"]:
        click.echo(f"  {version['version']}  {version['samples']:,} samples{'  good' if version['good'] else ''}")
    return 0
