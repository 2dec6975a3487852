"""`penstock flow`: the group; `flow_files` has what reads and writes flow files, `runs` what runs them."""

from __future__ import annotations

import click

from penstock.cli.lazy import LazyGroup

COMMANDS = {
    "init": ("penstock.cli.flow_files:init", "Write a small runnable flow, with a features file and 1,000 rows."),
    "check": ("penstock.cli.flow_files:check", "Print every problem of the given flow files; run nothing."),
    "fmt": ("penstock.cli.flow_files:fmt", "Rewrite a flow file in its canonical form."),
    "show": ("penstock.cli.flow_files:show", "Draw a flow as text, or as an SVG picture."),
    "convert": ("penstock.cli.flow_files:convert", "Turn a flow into XML, JSON or a Python script; nothing is lost."),
    "schema": ("penstock.cli.flow_files:schema", "Print the JSON Schema of flows, or their XSD for editors."),
    "run": ("penstock.cli.runs:run", "Run a flow."),
    "preview": ("penstock.cli.runs:preview", "Show the first rows of one step."),
    "runs": ("penstock.cli.runs:runs", "List the runs, or show one of them with its lineage."),
    "logs": ("penstock.cli.runs:logs", "Print the logs of a run's nodes."),
    "cancel": ("penstock.cli.runs:cancel", "Stop a run."),
    "gc": ("penstock.cli.runs:gc", "Remove old runs from the run store."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog="Example:  penstock flow check ctr.xml && penstock flow run ctr.xml")
def flow() -> None:
    """Check, run, convert and look at flow files."""
