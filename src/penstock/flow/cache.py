"""When a node need not run: its key, and whether what an earlier run left still stands.

A key is the SHA-256 of everything the node's result depends on: its steps as written, settings, environment, what its
inputs hold, the side files it reads, the code that would compute it. Paths of the run store are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import penstock
from penstock.data import remote
from penstock.data.stores import is_remote, local_path
from penstock.data.targets import content_hash
from penstock.flow.plan import Plan, PlannedNode
from penstock.flow.records import CacheEntry, StoredOutput

#: Program files named by a command's arguments are read whole up to this size; beyond it size and mtime must do.
READ_WHOLE_BYTES = 64 << 20
_TRUE = {"true", "1", "yes", "on"}


@dataclass(frozen=True)
class Keyed:
    """A node's key and the lineage it was made of. `cacheable`: whether a later run may take the result over."""

    key: str
    lineage: Mapping[str, Any]
    cacheable: bool


def key_of(plan: Plan, node: PlannedNode, upstream: Mapping[str, StoredOutput]) -> Keyed:
    """The key of a node whose inputs are all there. `upstream`: "node.output" -> what it left."""
    by_content = node.conf.get("hash_inputs", "").lower() in _TRUE
    inputs: list[dict[str, Any]] = []
    for step, source in node.from_nodes.items():
        inputs.append({"step": step, "from": source, "content": upstream[source].content})
    for source in node.node_outputs:
        inputs.append({"from": source, "content": upstream[source].content})
    made = {o.path for o in upstream.values()}
    known = True
    for path in node.reads():
        if path in made:
            continue
        found = stat_of(path) if not by_content or is_remote(path) else content_hash(path)
        known = known and bool(found)
        inputs.append({"path": path, "content" if by_content else "stat": found})
    files = {str(path): _hash_file(path) for path in node.files() if str(path) not in made}
    if node.engine == "command":
        files |= _programs(node, Path(plan.flow_dir))
    lineage = {
        "inputs": inputs,
        "files": files,
        "code": {"penstock": package_code(), **node.code},
        "params": dict(plan.params),
        "conf": dict(node.conf),
    }
    parts = {
        "node": {
            "engine": node.engine,
            "args": node.args,
            "env": dict(node.env),
            "steps": [step.model_dump(mode="json", exclude={"line"}) for step in node.steps],
            "values": _values_used(plan, node),
        },
        **lineage,
    }
    parts.pop("params")  # what matters of them is in the steps already
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return Keyed(hashlib.sha256(text.encode()).hexdigest(), lineage, known and _may_be_cached(node))


def _may_be_cached(node: PlannedNode) -> bool:
    """Replaceable local outputs only: to print, to append or to refuse an existing file is an act of each run."""
    return bool(node.outputs) and all(
        o.kind != "none" and o.mode == "replace" and not (o.path and is_remote(o.path)) for o in node.outputs.values()
    )


def _values_used(plan: Plan, node: PlannedNode) -> dict[str, str]:
    """Values that side files may still ask for; the run's own name and moment only where a file names them."""
    files = node.files()
    if not files:
        return {}
    text = b"".join(p.read_bytes() for p in files if p.suffix == ".xml" and p.is_file())
    return {k: v for k, v in plan.values.items() if k != "flow.dir" and b"${" + k.encode() in text}


def _programs(node: PlannedNode, flow_dir: Path) -> dict[str, str]:
    """A command's own code: the program, and every argument that is a file."""
    found = {}
    for number, argument in enumerate(node.args):
        path = flow_dir / argument
        if number == 0 and "/" not in argument:
            path = Path(shutil.which(argument) or argument)
        with suppress(OSError, ValueError):
            if path.is_file():
                big = number == 0 or path.stat().st_size > READ_WHOLE_BYTES
                found[str(path)] = stat_of(str(path)) if big else _hash_file(path)
    return found


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


@cache
def package_code() -> str:
    """What stands for the built-in operators' code: the version; in a checkout, also when each file was changed."""
    root = Path(penstock.__file__).parent
    if "site-packages" in root.parts:
        return penstock.__version__
    files = sorted(p for p in root.rglob("*") if p.suffix in (".py", ".so"))
    stats = "".join(f"{p.relative_to(root)}:{p.stat().st_size}:{p.stat().st_mtime_ns};" for p in files)
    return f"{penstock.__version__}+{hashlib.sha256(stats.encode()).hexdigest()[:16]}"


# --- what stands on disk ---


def stat_of(location: str) -> str:
    """A quick fingerprint, from sizes and mtimes alone; "" where nothing is there or nobody can say."""
    if is_remote(location):
        return _remote_stat(location)
    path = local_path(location)
    try:
        if path.is_file():
            found = path.stat()
            return f"{found.st_size}:{found.st_mtime_ns}"
        files = sorted(p for p in path.rglob("*") if p.is_file())
        if not path.is_dir():
            return ""
        whole = hashlib.sha256()
        for file in files:
            found = file.stat()
            whole.update(f"{file.relative_to(path)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        return f"{len(files)} files:{whole.hexdigest()}"
    except OSError:
        return ""


def _remote_stat(url: str) -> str:
    try:
        return remote.stat_of(url)
    except Exception:  # any client's own error: we cannot say, so the node runs
        return ""


def stands(output: StoredOutput) -> bool:
    """Whether an output is still what was left: size and mtime first, content where they differ."""
    if stat_of(output.path) == output.stat != "":
        return True
    return bool(output.content) and not is_remote(output.path) and content_hash(output.path) == output.content


def take_over(node: PlannedNode, entry: CacheEntry, paths: Mapping[str, str]) -> dict[str, StoredOutput] | None:
    """Bring a cached node's outputs to where this run wants them (`paths`: output -> path); None if one is gone.

    Outputs in the run store are hard-linked into this run's folder, so every run is whole by itself and the older one
    may be removed. Outputs with a path of their own must stand there still.
    """
    if set(entry.outputs) != set(paths) or not all(stands(o) for o in entry.outputs.values()):
        return None
    taken = {}
    for name, output in entry.outputs.items():
        place = paths[name]
        if output.path != place:
            if node.outputs[name].path is not None:
                return None
            if not _link(Path(output.path), Path(place)):
                return None
        taken[name] = replace(output, path=place, stat=stat_of(place))
    return taken


def _link(source: Path, target: Path) -> bool:
    """A second name for the same content; a copy where the file system has no links."""
    aside = target.with_name(f".{target.name}.link")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in (aside, target):
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        if source.is_dir():
            shutil.copytree(source, aside, copy_function=_link_file)
        else:
            _link_file(source, aside)
        aside.rename(target)
    except OSError:
        return False
    return True


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
