"""`penstock online`: the commands of the closed loop, each imported when it is called."""

from __future__ import annotations

import click

from penstock.cli.lazy import LazyGroup

COMMANDS = {
    "join": ("penstock.cli.online_join:join", "Join impressions with feedback into a topic of samples."),
}


@click.command(cls=LazyGroup, lazy=COMMANDS)
def online() -> None:
    """The closed loop: what users do now changes what is served seconds later."""
