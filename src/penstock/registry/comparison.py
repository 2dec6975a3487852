"""Two versions side by side: metrics, signature, plan, parameters, size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.registry.telling import columns, size
from penstock.registry.versions import Version


def diff(old: Version, new: Version) -> dict[str, Any]:
    """What differs, as JSON. `compatible`: requests for the old one fit the new one and give the same outputs."""
    inputs, outputs = (_signature(old, new, which) for which in ("inputs", "outputs"))
    return {
        "from": old.uri,
        "to": new.uri,
        "same_bundle": old.digest == new.digest,
        "algorithm": [old.manifest.get("algorithm"), new.manifest.get("algorithm")],
        "metrics": _metrics(old.metrics, new.metrics),
        "inputs": inputs,
        "outputs": outputs,
        "compatible": not (inputs["added"] or inputs["changed"] or inputs["removed"] or any(outputs.values())),
        "plan": {"from": old.manifest.get("plan", ""), "to": new.manifest.get("plan", ""),
                 "same": old.manifest.get("plan") == new.manifest.get("plan")},
        "parameters": _changed(old.manifest.get("parameters", {}), new.manifest.get("parameters", {})),
        "libraries": _changed(old.manifest.get("libraries", {}), new.manifest.get("libraries", {})),
        "size_bytes": [old.size_bytes, new.size_bytes],
        "files": _files(old, new),
    }  # fmt: skip


def diff_text(found: Mapping[str, Any]) -> str:
    """The same for people."""
    before, after = found["size_bytes"]
    lines = [f"{found['from']} -> {found['to']}" + ("  (the same bundle)" if found["same_bundle"] else "")]
    rows = [("metric", "from", "to", "change")]
    rows += [
        (name, *(_number(found["metrics"][name][k]) for k in ("from", "to", "change"))) for name in found["metrics"]
    ]
    lines += ["", columns(rows)] if len(rows) > 1 else []
    for which in ("inputs", "outputs"):
        for what, names in found[which].items():
            lines += [f"{which} {what}: {', '.join(map(_described, names))}"] if names else []
    lines += [f"signature   {'compatible' if found['compatible'] else 'NOT compatible: a split of the two is refused'}"]
    lines += [f"plan        {'the same' if found['plan']['same'] else 'another one'}"]
    lines += [f"size        {size(before)} -> {size(after)}"]
    for which in ("parameters", "libraries"):
        lines += [f"{which:<11} {name}: {a} -> {b}" for name, (a, b) in found[which].items()]
    return "\n".join(lines)


def _metrics(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name in dict.fromkeys((*old, *new)):
        a, b = old.get(name), new.get(name)
        both = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
        found[name] = {"from": a, "to": b, "change": b - a if both else None}  # type: ignore[operator]
    return found


def _signature(old: Version, new: Version, which: str) -> dict[str, Any]:
    a, b = ({c["name"]: c for c in version.signature.get(which, ())} for version in (old, new))
    kinds = ("type", "datatype", "shape")
    return {
        "added": [name for name in b if name not in a],
        "removed": [name for name in a if name not in b],
        "changed": [
            {"name": name, "from": _kind(a[name]), "to": _kind(b[name])}
            for name in a
            if name in b and any(a[name].get(k) != b[name].get(k) for k in kinds)
        ],
    }


def _kind(column: Mapping[str, Any]) -> str:
    shape = column.get("shape")
    return f"{column.get('datatype') or column.get('type') or '?'}{list(shape) if shape else ''}"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {k: [old.get(k), new.get(k)] for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)}


def _files(old: Version, new: Version) -> dict[str, Any]:
    return {
        path: [old.files.get(path, ("", 0))[1], new.files.get(path, ("", 0))[1]]
        for path in sorted({*old.files, *new.files})
        if old.files.get(path) != new.files.get(path)
    }


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else "-" if value is None else str(value)


def _described(change: Any) -> str:
    return change if isinstance(change, str) else f"{change['name']} {change['from']} -> {change['to']}"
