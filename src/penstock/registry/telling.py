"""Versions in words: the list, the card of one, and the JSON documents of commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.registry.aliases import Move
from penstock.registry.sweep import Swept
from penstock.registry.versions import Version


def listing(versions: Sequence[Version]) -> str:
    """A line a version, in columns."""
    head = ("version", "aliases", "algorithm", "size", "pushed", "metrics", "")
    rows = [
        (
            f"{v.name}/{v.number}",
            " ".join(v.aliases),
            str(v.manifest.get("algorithm", "")),
            size(v.size_bytes),
            v.pushed_at[:16].replace("T", " "),
            _metrics(v.metrics),
            "swept" if v.swept_at else "pinned" if v.pinned else "",
        )
        for v in versions
    ]
    return columns([head, *rows]) if rows else "no versions yet: penstock models push PATH --name NAME"


def document(version: Version, moves: Sequence[Move]) -> dict[str, Any]:
    """All there is to know of a version, as JSON."""
    return {
        **version.as_dict(),
        "plan": version.manifest.get("plan", ""),
        "signature": dict(version.signature),
        "parameters": version.manifest.get("parameters", {}),
        "libraries": version.manifest.get("libraries", {}),
        "lineage": dict(version.lineage),
        "proof": dict(version.proof),
        "files": {path: {"sha256": sha, "size_bytes": size_} for path, (sha, size_) in sorted(version.files.items())},
        "history": [move.as_dict() for move in moves],
    }


def card(version: Version, moves: Sequence[Move]) -> str:
    """What an operator wants to see of a version, most wanted first."""
    lines = [
        f"{version.uri}  {' '.join('@' + a for a in version.aliases)}".rstrip(),
        f"  algorithm   {version.manifest.get('algorithm', '')}",
        f"  digest      {version.digest}",
        f"  size        {size(version.size_bytes)} in {len(version.files)} files",
        f"  pushed      {version.pushed_at} by {version.pushed_by}",
        f"  metrics     {_metrics(version.metrics, 20) or '-'}",
        f"  inputs      {_columns(version.signature.get('inputs', ()))}",
        f"  outputs     {_columns(version.signature.get('outputs', ()))}",
        f"  plan        {str(version.manifest.get('plan', ''))[:12] or '-'}",
        f"  proof       {proof_line(version.proof)}",
    ]
    lines += [f"  {key:<11} {value}" for key, value in _lineage(version.lineage)]
    for key, value in (("tags", _pairs(version.tags)), ("notes", version.notes), ("pinned", version.pinned)):
        lines += [f"  {key:<11} {value}"] if value else []
    lines += [f"  SWEPT       its files were removed at {version.swept_at}"] if version.swept_at else []
    if moves:
        lines += ["", "aliases, newest move first"]
        lines += [f"  {move_line(move)}" for move in reversed(moves[-20:])]
    return "\n".join(lines)


def swept(found: Swept) -> str:
    """What gc did, or would do."""
    would = "would be " if found.dry_run else ""
    lines = [f"{uri:<24} kept: {why}" for uri, why in found.kept.items()]
    lines += [f"{uri:<24} {would}given a tombstone" for uri in found.tombstoned]
    lines += [f"{uri:<24} has a tombstone, and waits" for uri in found.waiting]
    lines += [f"{uri:<24} {would}removed" for uri in found.swept]
    freed = f"{found.blobs} files of {size(found.freed_bytes)} {would}removed, {size(found.later_bytes)} later"
    return "\n".join([*lines, f"{freed}; --yes does it" if found.dry_run else freed])


def move_line(move: Move) -> str:
    """`2026-01-31T10:00  live  3 -> 4  ann@host  why`."""
    steps = f"{move.old or '-'} -> {move.new or '-'}"
    return f"{move.at[:19]}  {move.alias:<10} {steps:<10} {move.by}  {move.why}".rstrip()


def size(count: int) -> str:
    """Bytes as people say them."""
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Texts below one another."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, Any], most: int = 3) -> str:
    shown = [f"{k}={v:.4g}" for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    return " ".join(shown[:most])


def _columns(described: Sequence[Mapping[str, Any]]) -> str:
    shown = [f"{c['name']}:{c.get('datatype') or c.get('type') or '?'}" for c in described]
    return ", ".join(shown[:12]) + (f", ... ({len(shown)})" if len(shown) > 12 else "") or "-"


def proof_line(proof: Mapping[str, Any]) -> str:
    """What proved a version, in one line."""
    if not proof:
        return "not needed: Penstock's own bundle"
    if proof.get("unproven"):
        return "UNPROVEN: pushed with --unproven"
    rows = (
        f"{proof.get('rows', 0):,} {'made-up ' if proof.get('made_up') else ''}rows and {proof.get('added', 0)} added"
    )
    return f"{rows}, largest difference {proof.get('largest_difference', 0):.3g}, tolerance {proof.get('tolerance')}"


def _lineage(lineage: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = ("run", "flow", "node", "parent")
    return [(key, str(lineage[key])) for key in known if lineage.get(key)]


def _pairs(tags: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in tags.items())
