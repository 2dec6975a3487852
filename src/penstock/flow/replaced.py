"""Folders that an output replaces as a whole, and what must not be lost with them."""

from __future__ import annotations

import os

from penstock.data.stores import is_remote, local_path
from penstock.data.strangers import stranger
from penstock.operators.base import Output


def replaces_folder(output: Output) -> bool:
    """Whether writing it deletes what lies in a local folder."""
    return bool(output.path) and output.mode == "replace" and not is_remote(output.path) and output.folder()


def in_the_way(output: Output) -> str:
    """What lies in the folder and is not data of this output's format, "" where nothing does; only a run on record
    that wrote the folder makes it ours. An unreadable folder is for the writing itself to complain of."""
    if not replaces_folder(output):
        return ""
    try:
        return stranger(local_path(output.path), type(output).suffixes())
    except OSError:
        return ""


def written_as(path: str) -> str:
    """How a run's record names a local path."""
    return os.path.abspath(local_path(path))  # noqa: PTH100  a symlink stays a symlink


def refusal(name: str, place: str, found: str) -> tuple[str, str]:
    """What to say of output `name`, and what to do next."""
    message = f"output '{name}' would replace the folder {place}, and delete '{found}', which no run of ours wrote"
    return message, "choose another path, or empty the folder first"
