"""`penstock online join`: impressions and feedback become samples until it is told to stop."""

from __future__ import annotations

import gc
import json
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.online.runner import Runner

#: Between lines of progress where nobody watches.
_QUIET_S = 10.0


@click.command(epilog="Example:  penstock online join ctr.join.toml --check && penstock online join ctr.join.toml")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only check the file.")
@click.option("--drain", is_flag=True, help="End when the topics have been read to where they end now.")
@click.option("--quarantined", is_flag=True, help="Print the records that are none, a JSON object a line, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON document at the end.")
def join(file: Path, check: bool, drain: bool, quarantined: bool, as_json: bool) -> int:
    """Join the impressions with the feedback that FILE (TOML) names, and append samples to its third topic.

    Goes on where it was, whatever killed it, with each sample exactly once. SIGTERM and Ctrl-C commit, then end it:
    exit 0. A disk that is full or a broker that is away is waited for. Progress goes to stderr.
    docs/samples-from-behaviour.md: settings, what a sample weighs, metrics, what to do when.
    """
    from penstock.online.settings import read

    found = read(file)
    if check:
        click.echo(f"ok: {found.document.name}")
        return 0
    from penstock.data.prometheus import MetricsPort
    from penstock.online.metrics import text
    from penstock.online.runner import Runner

    if quarantined:
        from penstock.online.state import State

        with State(found.state) as state:
            state.begin()
            for one in state.quarantined():
                click.echo(json.dumps(one, ensure_ascii=False))
        return 0
    runner = Runner(found, lambda said: click.echo(said, err=True))
    with ExitStack() as stack:
        if found.document.metrics:
            port = stack.enter_context(MetricsPort(found.document.metrics))
            port.serve(lambda: text(runner.status))
            click.echo(f"metrics http://{port.address}/metrics", err=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runner.stopping.set())
        stack.callback(_progress(runner).set)
        # Events live for a moment by the ten thousand, and none in a circle.
        gc.freeze()
        gc.set_threshold(200_000, 50, 50)
        counts = runner.run(drain)
    if as_json:
        click.echo(json.dumps(counts))
    return 0


def _progress(runner: Runner) -> threading.Event:
    """Shows the status until the event that it returns is set."""
    from penstock.online.metrics import line

    over = threading.Event()
    watched = sys.stderr.isatty()

    def show() -> None:
        while not over.wait(1.0 if watched else _QUIET_S):
            said = line(runner.status)
            click.echo(f"\r\x1b[K{said}" if watched else said, err=True, nl=not watched)

    threading.Thread(target=show, name="penstock-progress", daemon=True).start()
    return over
