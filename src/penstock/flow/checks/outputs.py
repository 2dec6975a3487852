"""Where outputs go: no two on one path, none inside another, none read before it is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from penstock.data.stores import is_remote, local_path
from penstock.errors import PenstockError
from penstock.flow.checks.findings import NodeState, Scene, StepState
from penstock.flow.graph import ancestors
from penstock.flow.replaced import in_the_way, refusal, replaces_folder, written_as
from penstock.flow.store_places import store_folder
from penstock.operators.base import Output


def written(state: NodeState) -> Iterator[tuple[StepState, Output]]:
    """The node's outputs that name a path."""
    for step in state.steps.values():
        if isinstance(step.operator, Output) and step.operator.path:
            yield step, step.operator


def check_targets(scene: Scene) -> None:
    """Each path is written once; a folder that one output replaces holds no other's file."""
    owners: dict[str, tuple[NodeState, StepState, Output]] = {}
    for node in scene.nodes.values():
        for step, operator in written(node):
            path = operator.path.rstrip("/")
            other = owners.get(path)
            if other is None:
                owners[path] = (node, step, operator)
            elif not (operator.mode == other[2].mode == "append"):
                message = (
                    f"{_full(node, step)} writes {shown(path, scene)}, which {_full(other[0], other[1])} writes too"
                )
                scene.findings.add(step.step.line, "FLOW052", message, "give one of them another path")
    for path, (node, step, _) in owners.items():
        parent = path
        while "/" in parent.rstrip("/"):
            parent = parent.rpartition("/")[0]
            if parent in owners:
                outer_node, outer, _ = owners[parent]
                message = (
                    f"{_full(node, step)} writes {shown(path, scene)}, inside the folder of {_full(outer_node, outer)}"
                )
                hint = f"{shown(parent, scene)} is replaced as a whole: put them side by side"
                scene.findings.add(step.step.line, "FLOW053", message, hint)
                break


def check_replaced(scene: Scene) -> None:
    """A folder that is replaced as a whole holds nothing that the flow needs (not the flow, nor what it reads), and
    nothing that is plainly not data."""
    replacing = [
        (node, step, operator)
        for node in scene.nodes.values()
        for step, operator in written(node)
        if replaces_folder(operator)
    ]
    held = _held(scene) if replacing else {}
    for node, step, operator in replacing:
        what = held.get(_place(operator.path), "")
        if what:
            place = shown(os.path.normpath(operator.path), scene)
            message = f"{_full(node, step)} replaces the folder {place}, which holds {what}"
            scene.findings.add(step.step.line, "FLOW055", message, "give the output a folder of its own")
            continue
        found = in_the_way(operator)
        if found and not _on_record(scene, operator):
            place = shown(os.path.normpath(operator.path), scene)
            message, hint = refusal(f"{node.name}.{step.step.name}", place, found)
            scene.findings.add(step.step.line, "DATA024", message, hint)


def _on_record(scene: Scene, operator: Output) -> bool:
    """Whether a run that the store knows wrote this place."""
    folder = store_folder(scene.flow_dir)
    if not (folder / "store.sqlite").exists():
        return False
    from penstock.flow.store import RunStore  # SQLite, for the rare flow that must ask

    try:
        store = RunStore.open(folder)
        try:
            return store.wrote(written_as(operator.path))
        finally:
            store.close()
    except PenstockError:
        return False  # the run will say what is wrong with its store


def _held(scene: Scene) -> dict[str, str]:
    """Folders that must not be replaced, and what lies there. An input's own folder may be written anew."""
    home = scene.flow_dir
    held: dict[str, str] = {}
    for what, own in (("the run store", str(store_folder(home))), ("the flow's own folder", str(home))):
        held |= dict.fromkeys((_place(own), *_above(_place(own))), what)
    seen: set[str] = set()
    for node in scene.nodes.values():
        for name, step in node.steps.items():
            if step.step.kind == "input" and not step.source:
                for path in re.split(r"[,\s]+", step.attrs.get("path", "")):
                    if path and path not in seen and not is_remote(path):
                        seen.add(path)
                        for folder in _above(_place(path)):
                            if folder in held:  # and so is all above it
                                break
                            held[folder] = f"what input '{node.name}.{name}' reads"
    return held


def _above(place: str) -> Iterator[str]:
    """Every folder around a place, the closest first."""
    while place != "/":
        place = place.rpartition("/")[0] or "/"
        yield place


def _place(path: str) -> str:
    return os.path.realpath(local_path(path))


def _full(node: NodeState, step: StepState) -> str:
    return f"output '{node.name}.{step.step.name}'"


def shown(path: str, scene: Scene) -> str:
    """A path as the flow's author would write it: from the flow's folder, where it lies inside."""
    base = f"{scene.flow_dir}/"
    return path[len(base) :] if path.startswith(base) else path


def promise(scene: Scene) -> dict[str, frozenset[str]]:
    """Node -> the paths that exist by the time it runs; tells of reads that nothing puts after the write."""
    paths = {name: [op.path.rstrip("/") for _, op in written(state)] for name, state in scene.nodes.items()}
    writers = {path: name for name, found in paths.items() for path in found}
    if not writers:
        return {}
    needs = ancestors({name: [n for n in state.needs if n in scene.nodes] for name, state in scene.nodes.items()})
    promised: dict[str, frozenset[str]] = {}
    for name, state in scene.nodes.items():
        known = {path for need in needs[name] for path in paths[need]}
        for step in state.steps.values():
            if step.step.kind != "input" or step.source or not step.attrs.get("path"):
                continue
            for path in step.attrs["path"].split(","):
                writer = _writer(path.rstrip("/"), writers)
                if writer is None or writer == name or writer in needs[name] or name in needs[writer]:
                    continue
                output = next(s.step.name for s, op in written(scene.nodes[writer]) if _covers(op.path, path))
                what = f"{step} reads {shown(path, scene)}, which node '{writer}' writes"
                message = f"{what}, but nothing says that it runs first"
                hint = f'write from="{writer}.{output}" in place of type and path, or after="{writer}" on the node'
                scene.findings.add(step.step.line, "FLOW054", message, hint)
                known.add(path.rstrip("/"))
        promised[name] = frozenset(known)
    return promised


def _writer(path: str, writers: dict[str, str]) -> str | None:
    """The node that writes this path or a folder around it."""
    while path:
        if path in writers:
            return writers[path]
        if "/" not in path:
            return None
        path = path.rpartition("/")[0]
    return None


def _covers(output: str, path: str) -> bool:
    return f"{path}/".startswith(f"{output.rstrip('/')}/")
