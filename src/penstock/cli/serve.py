"""`penstock serve`: check a configuration, or serve it until told to stop."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

import click

from penstock.errors import ProblemsFound, RequestError


@click.command(epilog="Example:  penstock serve serving.toml --check && penstock serve serving.toml")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--check", is_flag=True, help="Only check the file and the versions that it names.")
@click.option("--json", "as_json", is_flag=True, help="With --check: problems as one JSON document on stdout.")
@click.option("--token", is_flag=True, help="Make a bearer token, and the line of it for the file; nothing is stored.")
def serve(config: Path | None, check: bool, as_json: bool, token: bool) -> int:
    """Serve the models that CONFIG (TOML) names, over REST and gRPC.

    Prints `serving http=HOST:PORT grpc=HOST:PORT` on stdout once every model is ready; the log, a JSON object a line,
    goes to stderr. The file is watched: a change is checked, then applied; a bad one is refused. SIGTERM drains, then
    ends it: exit 0. Exit 2: the file cannot be.

    While it runs, `penstock release status` says who answers and how it goes, `penstock release rollback NAME` takes
    the last change back, and GET /metrics on the HTTP port counts. docs/serving.md: settings, log lines, metrics.
    """
    if token:
        made = secrets.token_urlsafe(32)
        click.echo(f"token:  {made}   (shown this once)")
        click.echo(f'sha256 = "{hashlib.sha256(made.encode()).hexdigest()}"')
        return 0
    if config is None:
        raise RequestError("which configuration?", "penstock serve serving.toml; docs/serving.md shows one")
    from penstock.serving import config as configs
    from penstock.serving.hosts import announced
    from penstock.serving.supervisor import Supervisor

    if check:
        return _check(config, as_json)
    read = configs.read(config)
    with announced(read):
        return Supervisor(read).run()


def _check(path: Path, as_json: bool) -> int:
    from penstock.serving import config as configs
    from penstock.serving.desired import problems_of, resolve

    try:
        config = configs.read(path)
        problems = problems_of(config, resolve(config, {}))
    except ProblemsFound as found:
        problems = list(found.problems)
    if as_json:
        click.echo(json.dumps([problem.as_dict() for problem in problems], indent=1))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        if not problems:
            names = ", ".join(config.blocks)
            click.echo(f"ok: {names}")
    return 2 if any(problem.severity == "error" for problem in problems) else 0
