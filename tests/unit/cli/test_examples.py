"""Every help ends what it says with an example, and every example is a command line that `penstock` takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from penstock.cli.main import root
from penstock.errors import RequestError

EXAMPLE = re.compile(r"^\s*Example:  (.+)$", re.M)
#: So that no help is wrapped: an example is one line then.
WIDE = 1_000


def context_of(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, parent, name, terminal_width=WIDE, max_content_width=WIDE)


def commands(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            assert below is not None
            yield from commands(context_of(below, name, context))


ALL = {each.command_path: each for each in commands(context_of(root, "penstock"))}


def examples(path: str) -> list[str]:
    return EXAMPLE.findall(ALL[path].command.get_help(ALL[path]))


def parsed(line: str) -> str:
    """The command that the line calls. Raises for a command, option, choice or count of arguments that is not so."""
    program, *words = shlex.split(line)
    assert program == "penstock"
    context = context_of(root, program)
    while isinstance(context.command, click.Group):
        name, command, words = context.command.resolve_command(context, words)
        assert command is not None
        context = context_of(command, name or "", context)
    context.command.parse_args(context, list(words))
    return context.command_path


def test_the_whole_tree_is_walked() -> None:
    assert {"penstock demo", "penstock flow gc", "penstock features skew", "penstock online join"} < set(ALL)


@pytest.mark.parametrize("path", ALL)
def test_a_help_has_an_example_of_its_command(path: str) -> None:
    found = [parsed(line) for example in examples(path) for line in example.split(" && ")]
    assert any(f"{each} ".startswith(f"{path} ") for each in found), f"{path} --help has no example"


@pytest.mark.parametrize("path", ALL)
def test_an_example_fits_a_line_of_the_widest_help(path: str) -> None:
    assert all(len(f"  Example:  {example}") <= 110 - 2 for example in examples(path))


@pytest.mark.parametrize(
    "line",
    [
        "penstock flwo run ctr.xml", "penstock flow rnu ctr.xml", "penstock flow run ctr.xml --resmue",
        "penstock flow convert ctr.xml --to yaml", "penstock flow run", "penstock flow run a.xml b.xml",
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_is_noticed(line: str) -> None:
    with pytest.raises((click.UsageError, RequestError)):
        parsed(line)
