"""Reading and writing flow files in any of their three forms, told apart by suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.data import safe_xml
from penstock.errors import Problem, ProblemsFound, RequestError
from penstock.flow.model import Flow
from penstock.flow.xml import Reading, read_xml, write_xml


def read(path: Path | str) -> Flow:
    """The flow of a .xml, .json or .py file. Raises `ProblemsFound` with every structural problem."""
    reading = load(path)
    if reading.flow is None or reading.problems:
        raise ProblemsFound(reading.problems)
    return reading.flow


def load(path: Path | str) -> Reading:
    """As `read`, but tells what it found rather than raise: a checker goes on with what could be read."""
    file, path = str(path), Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".xml", ".json", ".py"):
        return _failed(file, "its name does not say what it is", "flows are .xml, .json or .py files")
    try:
        if suffix == ".py":
            from penstock.flow.python_form import read_python

            return read_python(path, file) if path.is_file() else _failed(file, "there is no such file")
        limit, parse = _form(suffix)
        with path.open("rb") as opened:
            # One byte more than allowed is enough to refuse it: a huge file is never read whole.
            return parse(opened.read(limit + 1), file)
    except FileNotFoundError:
        return _failed(file, "there is no such file")
    except IsADirectoryError:
        return _failed(file, "it is a folder", "name the flow file in it")
    except OSError as error:
        return _failed(file, f"it cannot be read: {error.strerror or error}")


def _form(suffix: str) -> tuple[int, Callable[[bytes, str], Reading]]:
    """How many bytes such a file may have, and what reads them; a form is imported where it is met."""
    if suffix == ".xml":
        return safe_xml.MAX_BYTES, read_xml
    from penstock.flow import json_form

    return json_form.MAX_BYTES, json_form.read_json


def _failed(file: str, message: str, hint: str = "") -> Reading:
    return Reading(file, problems=[Problem(file, 0, "FLOW001", message, hint)])


def write(flow: Flow, form: str) -> str:
    """The flow as `xml` (canonical), `json` or `python`."""
    if form == "xml":
        return write_xml(flow)
    if form == "json":
        from penstock.flow.json_form import write_json

        return write_json(flow)
    if form == "python":
        from penstock.flow.python_form import write_python

        return write_python(flow)
    raise RequestError(f"there is no form '{form}'", "forms: xml, json, python")
