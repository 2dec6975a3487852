"""Dictionaries: where each lies, compiled once, kept by the hash of its content.

A compiled dictionary is a file that every process maps into memory; the cache holds one for each source content, so
that checking a flow again, or running it elsewhere on this machine, compiles nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock import native
from penstock.errors import DataError, did_you_mean
from penstock.features.model import Dictionary, FeatureFile
from penstock.operators.base import Fault

#: Raised when the compiled form changes, so that files of another Penstock are not opened.
_FORM = "1"
_UNUSED_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Places:
    """Where `<dict from="node.output">` lies.

    `outputs`: "node.output" -> path, of the outputs that are written already; `promised`: those that an earlier node
    will write, and `promised_paths` their paths; `within_flow`: whether there is a flow at all.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    promised: frozenset[str] = frozenset()
    promised_paths: frozenset[str] = frozenset()
    within_flow: bool = False


@dataclass(frozen=True)
class Found:
    """The declared dictionaries, and where each lies as far as is known."""

    known: frozenset[str]
    places: Mapping[str, Path]
    faults: tuple[Fault, ...]


def check(file: FeatureFile, places: Places) -> Found:
    """Find every dictionary and look into it: a duplicate is a fault of the dictionary's own file and line."""
    found: dict[str, Path] = {}
    faults: list[Fault] = []
    for dictionary in file.dictionaries:
        path = locate(file, dictionary, places)
        if isinstance(path, Fault):
            faults.append(path)
        elif path is not None:
            found[dictionary.name] = path
            faults += _contents(file, dictionary, path, places)
    return Found(frozenset(d.name for d in file.dictionaries), found, tuple(faults))


def locate(file: FeatureFile, dictionary: Dictionary, places: Places) -> Path | Fault | None:
    """The dictionary's file; None where an earlier node will write it, or where the element itself is at fault."""

    def fault(message: str, hint: str) -> Fault:
        return Fault("FEAT016", f"dict '{dictionary.name}': {message}", hint, file=file.shown, line=dictionary.line)

    if dictionary.source and dictionary.path:
        return None  # said where the element was read
    if dictionary.source:
        if dictionary.source in places.outputs:
            return Path(places.outputs[dictionary.source].removeprefix("file://"))
        if dictionary.source in places.promised:
            return None
        if not places.within_flow:
            return fault(f"'{dictionary.source}' is an output of a flow", "run this file in its flow, or give a path")
        hint = did_you_mean(dictionary.source, [*places.promised, *places.outputs], "write it as node.output")
        return fault(f"there is no output '{dictionary.source}' in this flow", hint)
    return (file.path.parent / dictionary.path) if dictionary.path else None


def _contents(file: FeatureFile, dictionary: Dictionary, path: Path, places: Places) -> Iterator[Fault]:
    if not path.is_file():
        if str(path) in places.promised_paths or os.path.normpath(path) in places.promised_paths:
            return
        reason = "is a folder, not a file with a value a line" if path.is_dir() else "does not exist"
        message = f"dict '{dictionary.name}': {path} {reason}"
        hint = f"paths are relative to the folder of {file.path.name}"
        yield Fault("FEAT016", message, hint, file=file.shown, line=dictionary.line)
        return
    try:
        compiled(path)
    except DictionaryError as error:
        if error.line:
            yield Fault("FEAT017", error.reason, error.hint, file=str(path), line=error.line)
        else:
            message = f"dict '{dictionary.name}': {error.reason}"
            yield Fault("FEAT017", message, error.hint, file=file.shown, line=dictionary.line)


class DictionaryError(DataError):
    """A dictionary that cannot be compiled. `line` is its own, 0 for the file as a whole."""

    def __init__(self, path: Path, line: int, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}", hint, "FEAT017")
        self.line = line
        self.reason = reason


def compiled(source: Path) -> Path:
    """The compiled form of a text dictionary, from the cache where its content was compiled before.

    Raises `DictionaryError`.
    """
    try:
        with source.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DictionaryError(source, 0, f"cannot be read: {error.strerror or error}") from None
    gz = "gz" if source.suffix == ".gz" else "text"
    target = cache_folder() / f"{content}-{gz}-{_FORM}.dict"
    if not target.exists():
        _forget_unused(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            staged = Path(scratch) / "compiled"
            compile_file(source, staged)
            staged.replace(target)
    os.utime(target)  # the cache forgets what nobody used
    return target


def compile_file(source: Path, target: Path) -> None:
    """Compile a text file. Raises `DictionaryError` with the dictionary's own line."""
    try:
        native.Dictionary.compile(str(source), str(target))
    except (ValueError, OSError) as error:
        raise _explained(source, str(error)) from None


_PLACED = re.compile(r"^(?P<path>.*?):(?P<line>\d+): (?P<reason>.*)$", re.DOTALL)


def _explained(source: Path, said: str) -> DictionaryError:
    match = _PLACED.match(said)
    if match is None or match["path"] != str(source):
        return DictionaryError(source, 0, said.removeprefix(f"{source}: "))
    reason = match["reason"]
    hint = "a dictionary's lines are all different: delete one" if "already" in reason else ""
    if "UTF-8" in reason:
        hint = "dictionaries are UTF-8; iconv -f GBK -t UTF-8 converts"
    return DictionaryError(source, int(match["line"]), reason, hint)


def cache_folder() -> Path:
    """Where compiled dictionaries are kept: under PENSTOCK_HOME, else the user's cache, else a temporary folder."""
    home = os.environ.get("PENSTOCK_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(home) if home else cache / "penstock") / "dictionaries"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    fallback = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}" / "dictionaries"
    fallback.mkdir(parents=True, exist_ok=True, mode=0o700)
    return fallback


def _forget_unused(folder: Path) -> None:
    for old in folder.glob("*.dict"):
        try:
            if time.time() - old.stat().st_mtime > _UNUSED_S:
                old.unlink()
        except OSError:
            continue  # another process was quicker
