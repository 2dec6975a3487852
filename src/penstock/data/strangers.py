"""What lies in a folder that is to be replaced, and is plainly not data: replacing it would delete somebody's work."""

from __future__ import annotations

import os
import re
from pathlib import Path

from penstock.data.paths import is_data
from penstock.data.stores import MANIFEST

#: How Hadoop's writers name the files of a table, with no suffix: part-r-00000, 000000_0, 000000_0_copy_1.
_PART = re.compile(r"part-[\w-]+|\d{6}_\d+(_copy_\d+)?")
_PARTITION = re.compile(r"[^=]+=.*")
#: A folder whose first so many entries all are data is one of data.
LOOKED_AT = 10_000


def stranger(folder: Path, suffixes: tuple[str, ...]) -> str:
    """The first thing, by name, that is plainly not data of a format with these suffixes, relative to `folder`.

    Data are files of these suffixes or of Hadoop's names, hidden and `_` files, and `name=value` folders of them. ""
    where there is nothing else, where Penstock's own list of files or a model bundle lies, or nothing lies at all.
    """
    return "" if not folder.is_dir() or _ours(folder) else _first(folder, folder, suffixes, [LOOKED_AT])


def _first(root: Path, folder: Path, suffixes: tuple[str, ...], left: list[int]) -> str:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if not left[0]:
                return ""
            left[0] -= 1
            if not entry.is_dir(follow_symlinks=False):
                known = entry.name.lower().endswith(suffixes) or _PART.fullmatch(entry.name)
                if is_data(entry.name) and not known:
                    return Path(entry.path).relative_to(root).as_posix()
            elif not _PARTITION.fullmatch(entry.name):
                return Path(entry.path).relative_to(root).as_posix() + "/"
            elif found := _first(root, Path(entry.path), suffixes, left):
                return found
    return ""


def _ours(folder: Path) -> bool:
    """A bundle's manifest names the library that wrote it."""
    if (folder / MANIFEST).is_file():
        return True
    manifest = folder / "manifest.json"
    return manifest.is_file() and b'"penstock"' in manifest.read_bytes()
