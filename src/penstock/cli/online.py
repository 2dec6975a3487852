"""`penstock online`: samples from behaviour, models that learn from them, and what is served of both."""

from __future__ import annotations

import click

from penstock.cli.lazy import LazyGroup

COMMANDS = {
    "join": ("penstock.cli.online_join:join", "Join impressions with feedback into a topic of samples."),
    "run": ("penstock.cli.online_run:run", "Train a model on a topic of samples, without an end."),
    "rollback": ("penstock.cli.online_run:rollback", "Go back to an earlier version of the loop."),
    "switch": ("penstock.cli.online_run:switch", "Let an alias go over to another loop of the same model."),
    "status": ("penstock.cli.online_run:status", "Who trains a model, and the versions a loop can go back to."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog="Example:  penstock online run loop.toml")
def online() -> None:
    """The closed loop: feedback becomes samples, samples become weights, weights are served."""
