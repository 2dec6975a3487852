"""Which views there are, what each gives, and what reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.errors import Problem, ProblemsFound, RequestError, did_you_mean
from penstock.features.views import parse
from penstock.features.views.model import View, ViewsFile

#: Where nothing of a team's own lies.
_PASSED_OVER = frozenset({".git", ".venv", ".penstock", "node_modules", "target", "__pycache__"})

#: Model -> its version, and the raw columns that it reads.
Readers = Mapping[str, Sequence[str]]


def find(places: Sequence[Path]) -> list[ViewsFile]:
    """The views files among files and in folders, however deep. Raises `ProblemsFound` for those with problems."""
    files: list[ViewsFile] = []
    problems: list[Problem] = []
    for path in _files(places):
        try:
            files.append(parse.read(path))
        except ProblemsFound as found:
            problems += found.problems
    if problems:
        raise ProblemsFound(problems)
    return files


def one(files: Sequence[ViewsFile], name: str) -> View:
    """A view by its name. Raises `RequestError` where none, or more than one file, has it."""
    found = [(file, file.views[name]) for file in files if name in file.views]
    if len(found) > 1:
        where = ", ".join(str(file.path) for file, _ in found)
        raise RequestError(f"several files declare a view '{name}': {where}", "name the file", "VIEW020")
    if not found:
        known = [view for file in files for view in file.views]
        hint = did_you_mean(name, known, f"there are {', '.join(known) or 'none'}")
        raise RequestError(f"there is no view '{name}'", hint, "VIEW020")
    return found[0][1]


def described(file: ViewsFile, view: View, readers: Readers) -> dict[str, Any]:
    """A view as one document. `models`: those whose raw columns are among its outputs, with these columns."""
    source = view.source
    models = {model: [name for name in view.outputs if name in set(columns)] for model, columns in readers.items()}
    return {
        "view": view.name, "file": str(file.path), "line": view.line, "owner": view.owner,
        "description": view.description, "entity": view.entity.name, "keys": [name for name, _ in view.entity.keys],
        "source": source.topic.split("@")[-1] if source.topic else f"{source.type} {source.attrs.get('path', '')}",
        "ttl_s": view.ttl_us / 1e6 if view.ttl_us else None,
        "outputs": [
            *({"name": c.name, "type": c.kind, "from": c.source, "function": "newest"} for c in view.columns),
            *(
                {"name": a.name, "type": view.outputs[a.name], "from": a.source, "function": a.function,
                 "window": "tumbling" if a.tumbling else "sliding", "size_s": a.size_us / 1e6,
                 "every_s": a.every_us / 1e6}
                for a in view.aggregates
            ),
        ],
        "models": {model: columns for model, columns in models.items() if columns},
    }  # fmt: skip


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            yield place
            continue
        for folder, names, files in os.walk(place):
            names[:] = sorted(name for name in names if name not in _PASSED_OVER)
            for file in sorted(files):
                path = Path(folder) / file
                if path.suffix == ".xml" and parse.is_views_file(path):
                    yield path
