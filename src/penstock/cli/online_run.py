"""`penstock online run|rollback|status`: a model that learns from a topic, and the way back."""

from __future__ import annotations

import json
import logging
import sys
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
