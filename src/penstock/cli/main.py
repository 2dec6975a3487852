"""`penstock`: the groups of commands, loaded lazily, and the one place that catches `PenstockError`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from penstock import __version__
from penstock.cli.lazy import LazyGroup
from penstock.errors import Interrupted, PenstockError, Problem, ProblemsFound

#: name -> (module:attribute, one line of help). The module is imported when the command is called.
COMMANDS = {
    "demo": (
        "penstock.cli.demo:demo",
        "Run the main job on simulated click logs, from raw logs to a model that learns while it serves.",
    ),
    "flow": ("penstock.cli.flow:flow", "Check, run, convert and look at flow files."),
    "operators": ("penstock.cli.operators:operators", "List the installed operators and what each one takes."),
    "features": ("penstock.cli.features:features", "Check, apply and explain feature files."),
    "models": (
        "penstock.cli.models:models",
        "Models by name: push, versions, aliases, rollback, gc, export and import.",
    ),
    "serve": ("penstock.cli.serve:serve", "Serve models over REST and gRPC (Open Inference Protocol v2)."),
    "release": ("penstock.cli.release:release", "Canary, shadow, promote, roll back what a host serves."),
    "online": ("penstock.cli.online:online", "The closed loop: join feedback, learn as it comes, publish, roll back."),
    "table": (
        "penstock.cli.table:table",
        "Look into embedding tables: counts, histograms, heaviest keys, differences.",
    ),
}


@click.command(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example:  penstock flow init ctr && penstock flow run ctr/ctr.xml",
)
@click.version_option(__version__, prog_name="penstock")
def root() -> None:
    """Penstock: raw logs become samples, features, models, and a service that keeps learning."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit status: 0 done, 1 it ran and failed, 2 the request was wrong, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        status: Any = root.main(args=arguments, prog_name="penstock", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return Interrupted.exit_status
    except click.ClickException as error:
        if "--json" in arguments:
            _print_problem(PenstockError(error.format_message(), "--help tells what it takes"))
        error.show()
        return 2
    except ProblemsFound as found:
        if "--json" in arguments:
            print(json.dumps([p.as_dict() for p in found.problems], ensure_ascii=False))
        else:
            print(found, file=sys.stderr)
        return found.exit_status
    except PenstockError as error:
        if "--json" in arguments:
            _print_problem(error)
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Interrupted.exit_status
    except BrokenPipeError:
        # The reader of our pipe left (`| head`): that is not an error, but Python would complain on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_problem(error: PenstockError) -> None:
    """What went wrong as the one JSON document that `--json` promises: a list of one problem that is of no file."""
    problem = Problem("", 0, error.code, error.message, error.hint)
    print(json.dumps([problem.as_dict()], ensure_ascii=False))
