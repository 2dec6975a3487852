"""What checkpoints and snapshots of embedding tables share: what is recorded of their maker, and how they go wrong.

The files are `docs/adr/0032-checkpoints-and-snapshots.md`; the native side tells a kind of fault and its facts, and
this module says it as a colleague would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock import native
from penstock.errors import DataError


class ArtefactError(DataError):
    """A checkpoint or snapshot that cannot be written, read or used (TRAIN031 to TRAIN039).

    `file`: which; `section`: the damaged part of it, "" where it is not about one.
    """

    def __init__(self, message: str, hint: str, code: str, file: str = "", section: str = "") -> None:
        super().__init__(message, hint, code)
        self.file = file
        self.section = section


class CutGivenUp(ArtefactError):
    """An open cut that ran into its limit of copies (TRAIN036). Training may go on: nothing was changed or written."""


def recorded(plan: str, slots: Sequence[str]) -> str:
    """The plan as files keep it: the caller's fingerprint, and the slots' names in the order of their numbers."""
    return json.dumps({"plan": plan, "slots": list(slots)}, ensure_ascii=False)


def read_recorded(text: str) -> tuple[str, list[str]]:
    """The other way; a file that was not written from Python has a plan and no names."""
    try:
        found = json.loads(text)
        return str(found["plan"]), [str(slot) for slot in found["slots"]]
    except (ValueError, TypeError, KeyError):
        return text, []


@contextmanager
def told(folder: Path | None = None) -> Iterator[None]:
    """Raises what the native side says as `ArtefactError`; `folder` is where the files it names are."""
    try:
        yield
    except native.ArtefactError as error:
        kind, message, facts = error.args
        file = facts.get("file", "")
        raise fault(kind, message, facts, str(folder / file) if folder and file else file) from None


def fault(kind: str, message: str, facts: dict[str, str], file: str) -> ArtefactError:
    match kind:
        case "damaged":
            section = facts["section"]
            hint = "restore the file from a copy; of a checkpoint, delete it and resume from the one before it"
            return ArtefactError(f"{file}: {section} is damaged: {facts['what']}", hint, "TRAIN031", file, section)
        case "version":
            found, known = facts["found"], facts["known"]
            text = f"{file} has format {found}, and this version reads format {known}"
            return ArtefactError(text, facts["hint"], "TRAIN032", file)
        case "mismatch" if facts["what"] == "plan":
            return _other_plan(file, facts["found"], facts["expected"])
        case "mismatch" if facts["what"] == "the file":
            text = f"{file} is {facts['found']}, not {facts['expected'].removeprefix('to be ')}"
            return ArtefactError(text, "name the file that was meant", "TRAIN033", file)
        case "mismatch":
            text = f"{file}: {facts['what']} is {facts['found']} there and {facts['expected']} here"
            hint = "declare the tables as they were, carry over those that are still alike (`carry`), or start anew"
            return ArtefactError(text, hint, "TRAIN033", file)
        case "parent":
            text = f"{file} builds on {facts['parent']}, which is not there or was replaced"
            return ArtefactError(text, "put that file back, or resume from an older checkpoint", "TRAIN035", file)
        case "copies":
            text = f"rows that changed while the cut was open took more than {int(facts['limit']):,} bytes of copies"
            hint = "nothing was written; raise copy_limit_bytes, or write more rows between two batches"
            return CutGivenUp(text, hint, "TRAIN036")
        case "io":
            text = f"{file}: {facts['doing']} failed: {facts['cause']}"
            hint = "what was there before is whole; make room or permission, then try again"
            return ArtefactError(text, hint, "TRAIN037", file)
        case "open":
            return ArtefactError("a cut of these tables is open already", "commit or abort it first", "TRAIN038")
        case "over":
            hint = "after an error, commit or abort there is nothing left to write; prepare another"
            return ArtefactError("the cut is no longer open", hint, "TRAIN038")
        case "not_empty":
            text = f"table '{facts['table']}' has been trained already, and a checkpoint fills empty tables"
            return ArtefactError(text, "make new EmbeddingTables and fill those", "TRAIN039")
        case _:
            return ArtefactError(message, "this is our mistake: please report it", "TRAIN031", file)


def _other_plan(file: str, found: str, expected: str) -> ArtefactError:
    (their_plan, theirs), (our_plan, ours) = read_recorded(found), read_recorded(expected)
    hint = "keys mean other things there; use the plan it was made with, or `carry` the tables that are still alike"
    if their_plan != our_plan:
        text = f"{file} was written with plan '{their_plan}', and this is plan '{our_plan}'"
    else:
        text = f"{file} has the slots {', '.join(theirs)}; here they are {', '.join(ours)}"
    return ArtefactError(text, hint, "TRAIN034", file)
