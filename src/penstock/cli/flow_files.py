"""`penstock flow check|fmt|convert|schema|show|init`: thin doors to the flow language."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from penstock.errors import PenstockError, ProblemsFound

_SET = click.option("--set", "settings", multiple=True, metavar="K=V", help="Give a parameter its value.")
_PARAMS = click.option("--params", "params_file", metavar="FILE", help="Parameters from a JSON or TOML file.")
_DATE = click.option(
    "--date", metavar="D", help="The date of ${run.date}: YYYY-MM-DD or YYYY-MM-DDTHH (default: now, UTC)."
)


def settings_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--set k=v` pairs. Raises `UsageError` for one without `=`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set {pair}: write --set NAME=VALUE")
        found[name] = value
    return found


def _write(path: Path, text: str) -> None:
    from penstock.data.atomic import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise PenstockError(f"cannot write {path}: {error.strerror or error}") from None


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_SET
@_PARAMS
@_DATE
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON on stdout.")
def check(
    files: tuple[str, ...], settings: tuple[str, ...], params_file: str | None, date: str | None, as_json: bool
) -> int:
    """Print every problem of the given flow files; run nothing.

    Exit status 0: no errors (there may be warnings); 2: there are errors.

    Example:  penstock flow check ctr.xml --set data=/logs
    """
    from penstock.flow import check_file

    given = settings_of(settings)
    problems = sorted({p for file in dict.fromkeys(files) for p in check_file(file, given, params_file, date)})
    if as_json:
        print(json.dumps([p.as_dict() for p in problems], ensure_ascii=False))
    elif problems:
        print(ProblemsFound(problems), file=sys.stderr)
    errors = sum(p.severity == "error" for p in problems)
    if not as_json:
        warned = len(problems) - errors
        said = f"{errors} problem{'s' * (errors != 1)}" + (f", {warned} warning{'s' * (warned != 1)}" if warned else "")
        print(f"{len(set(files))} file{'s' * (len(set(files)) != 1)} checked: {said}", file=sys.stderr)
    return 2 if errors else 0


@click.command()
@click.argument("file")
@click.option(
    "--check", "only_check", is_flag=True, help="Change nothing; exit 1 if the file is not in canonical form."
)
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the canonical form, leave the file as it is.")
@click.option("--json", "as_json", is_flag=True, help='Print {"file", "formatted"} on stdout: whether it was already.')
def fmt(file: str, only_check: bool, to_stdout: bool, as_json: bool) -> int:
    """Rewrite a flow file in its canonical form.

    Attributes in one order, two spaces a level, comments and text kept. Writes the form that FILE has.

    Example:  penstock flow fmt ctr.xml --check
    """
    from penstock.flow import read, write

    path = Path(file)
    form = {".json": "json", ".py": "python"}.get(path.suffix.lower(), "xml")
    formatted = write(read(file), form)
    was = path.read_bytes() == formatted.encode()
    if as_json:
        print(json.dumps({"file": file, "formatted": was}))
    elif to_stdout:
        sys.stdout.write(formatted)
        return 0
    if was:
        return 0
    if only_check:
        print(f"{file} is not in canonical form: run `penstock flow fmt {file}`", file=sys.stderr)
        return 1
    _write(path, formatted)
    print(f"{file} formatted", file=sys.stderr)
    return 0


@click.command()
@click.argument("file")
@click.option("--to", "form", required=True, type=click.Choice(["xml", "json", "python"]), help="The form to write.")
@click.option("-o", "--output", metavar="FILE", help="Where to write it (default: stdout).")
def convert(file: str, form: str, output: str | None) -> None:
    """Turn a flow into XML, JSON or a Python script; nothing is lost.

    FILE is any of the three (by its suffix). A Python script is executed, in a process of its own.

    Example:  penstock flow convert ctr.xml --to python -o ctr.py
    """
    from penstock.flow import read, write

    text = write(read(file), form)
    if output is None:
        sys.stdout.write(text)
    else:
        _write(Path(output), text)


@click.command()
@click.option("--xsd", is_flag=True, help="The XSD, for editors of XML, rather than the JSON Schema.")
@click.option("--json", is_flag=True, expose_value=False, help="What it prints without --xsd in any case.")
def schema(xsd: bool) -> None:
    """Print the JSON Schema of flows, or their XSD for editors.

    Both are made from the installed operators. The check is the authority: an XSD cannot say all that it says.

    Example:  penstock flow schema --xsd
    """
    from penstock.flow.schema_files import json_schema, xsd_schema

    sys.stdout.write(xsd_schema() if xsd else json_schema())


@click.command()
@click.argument("file")
@click.option("--plan", "with_plan", is_flag=True, help="Show the nodes as they would run, with values and paths.")
@click.option("--svg", metavar="OUT", help="Draw the flow into this SVG file.")
@_SET
@_PARAMS
@_DATE
@click.option("--json", "as_json", is_flag=True, help="The flow (its JSON form), or the plan, as JSON on stdout.")
def show(
    file: str,
    with_plan: bool,
    svg: str | None,
    settings: tuple[str, ...],
    params_file: str | None,
    date: str | None,
    as_json: bool,
) -> None:
    """Draw a flow as text, or as an SVG picture.

    Example:  penstock flow show ctr.xml --svg ctr.svg
    """
    from penstock.flow import check, plan, read, resolve, write
    from penstock.flow.drawing import draw
    from penstock.flow.telling import plan_document, tell, tell_plan

    flow = read(file)
    if svg:
        _write(Path(svg), draw(flow))
    if with_plan:
        todo = plan(check(flow, resolve(flow, settings_of(settings), params_file, date)))
        sys.stdout.write(json.dumps(plan_document(todo), ensure_ascii=False) + "\n" if as_json else tell_plan(todo))
    elif as_json:
        sys.stdout.write(write(flow, "json"))
    elif not svg:
        sys.stdout.write(tell(flow))


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the files written, as JSON on stdout.")
def init(name: str, as_json: bool) -> None:
    """Write a small runnable flow, with a features file and 1,000 rows, into the folder NAME.

    Example:  penstock flow init ctr && penstock flow run ctr/ctr.xml
    """
    from penstock.flow.starter import write_starter

    folder = Path(name)
    try:
        files = write_starter(folder)
    except OSError as error:
        raise PenstockError(f"cannot write into {folder}: {error.strerror or error}") from None
    if as_json:
        print(json.dumps({"flow": str(files[0]), "files": [str(file) for file in files]}))
    for file in files:
        print(f"wrote {file}", file=sys.stderr)
    print(f"next: penstock flow run {files[0]}", file=sys.stderr)
