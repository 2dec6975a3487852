"""Where plans are found again: in the run store by fingerprint, in model bundles, in plan folders.

A mapped Parquet file carries only the fingerprint of its plan; a node that trains on it finds the plan here.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from penstock.data.schema import Schema
from penstock.errors import PenstockError
from penstock.features import user_functions
from penstock.features.plan import FILE, Plan, PlanError
from penstock.operators.base import RunContext
from penstock.operators.places import is_name, models


def keep(plan: Plan, context: RunContext) -> Plan:
    """Store a plan in the run store under its fingerprint; the plan comes back as it now lies there."""
    target = context.plans / plan.fingerprint
    if not (target / FILE).is_file():
        context.plans.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=context.plans, prefix=".staged-"))
        plan.save(staged)
        try:
            os.rename(staged, target)  # noqa: PTH104 - a folder into its place, whole or not at all
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)  # another node kept the same plan first
    return Plan.load(target)


def note_types(plan: Plan, schema: Schema, context: RunContext) -> None:
    """Beside a kept plan, the types of the raw columns it was first applied to: what a model's signature tells."""
    target = context.plans / plan.fingerprint / "columns.json"
    if not target.is_file():
        types = {
            name: str(c.type) for name in plan.columns if (c := schema.get(name)) is not None and c.type is not None
        }
        staged = target.with_name(f".columns-{os.getpid()}")
        staged.write_text(json.dumps(types), encoding="utf-8")
        os.replace(staged, target)  # noqa: PTH105


def find_plan(fingerprint: str, context: RunContext) -> Plan:
    """The plan that mapped a frame whose schema carries `fingerprint`. Raises `PlanError` where it is not kept here."""
    folder = context.plans / fingerprint
    if not (folder / FILE).is_file():
        raise PlanError(
            f"the feature plan {fingerprint[:12]} that mapped these columns is not in the run store",
            "run the node with the features step again (--force), or give plan= a bundle",
            "FEAT026",
        )
    return Plan.load(folder)


def load(location: str) -> Plan:
    """The plan of a model bundle, of a version in the registry, or in a plan folder. Raises `PlanError`."""
    folder = models().folder(location) if is_name(location) else Path(location.removeprefix("file://"))
    for place in (folder, folder / "plan", folder / "features"):
        if (place / FILE).is_file():
            return Plan.load(place)
    if not folder.is_dir():
        raise PlanError(f"there is no bundle or plan folder at {location}", code="FEAT026")
    raise PlanError(f"the bundle {location} has no feature plan", "its model was trained on raw columns", "FEAT026")


def function_sources(location: str) -> str:
    """The sources of the user functions that the plan at `location` calls, by hash, as they are imported now: what a
    cache must look at beside the plan itself. Empty where there is no plan, or none that calls any.

    A `models:/` name adds the digest of its version, which stands for the files.
    """
    try:
        found = [models().digest(location)] if is_name(location) else []
        functions = load(location).document.get("functions", {})
    except PenstockError:
        return ""
    for path, stored in functions.items():
        try:
            found.append(user_functions.find(path, stored["takes"]).sha256)
        except user_functions.UserFunctionError as error:
            found.append(str(error))  # the run says what is wrong; here it only has to differ
    return ",".join(found)
