"""What `table_report` finds, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

#: Characters of the longest bar of a histogram.
BAR = 32
EIGHTHS = " ▏▎▍▌▋▊▉"


def stat_text(found: dict[str, Any]) -> str:
    lines = [f"{found['what']} {found['path']}: {found['rows']:,} rows, {size(found['bytes'])} on disk"]
    if found["plan"]:
        lines.append(f"plan {found['plan']}")
    for table in found["tables"]:
        lines += ["", *_table(table)]
    return "\n".join(lines)


def _table(table: dict[str, Any]) -> list[str]:
    optimizer = f", {table['optimizer']}" if table["optimizer"] else ""
    lines = [
        f"table {table['name']}: {table['rows']:,} rows of {table['dim']} x {table['dtype']}{optimizer}, "
        f"{size(table['bytes'])} of values{' and state' if optimizer else ''}"
    ]
    for slot, rows in table["slots"].items():
        lines.append(f"  slot {slot}: {'shares the table' if rows is None else f'{rows:,} rows'}")
    if table["not_finite_rows"]:
        lines.append(f"  {table['not_finite_rows']:,} rows have numbers that are not finite")
    if table["last_seen_s"] and any(table["last_seen_s"]):  # all 0: steps were not told the time
        lines.append(f"  last seen {' to '.join(map(moment, table['last_seen_s']))}")
    norms = [(f"{b['from']:.3g} to {b['below']:.3g}", b["rows"]) for b in table["norms"]]
    if table["zero_rows"]:
        norms.insert(0, ("0", table["zero_rows"]))
    counts = [
        (f"{b['from']:,}" if b["below"] - b["from"] <= 1 else f"{b['from']:,} to {b['below'] - 1:,}", b["rows"])
        for b in table["counts"]
    ]
    return lines + _histogram("norm", norms) + _histogram("count", counts)


def _histogram(name: str, bins: Sequence[tuple[str, int]]) -> list[str]:
    if not bins:
        return []
    width, most = max(len(label) for label, _ in bins), max(rows for _, rows in bins)
    digits = max(len(f"{rows:,}") for _, rows in bins)
    return [f"  {name}"] + [
        f"  {label.rjust(width)}  {rows:>{digits},}  {bar(rows / most)}".rstrip() for label, rows in bins
    ]


def bar(share: float) -> str:
    """A bar of up to `BAR` characters, in eighths of one; what is above zero shows."""
    eighths = max(round(share * BAR * 8), 1) if share > 0 else 0
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def head_text(found: Sequence[dict[str, Any]]) -> str:
    if not found:
        return "no rows"
    columns = ["table", "slot", "key", "text", "norm", "count", "last seen", "values"]
    rows = [
        [
            row["table"],
            row["slot"],
            row["key"],
            row["text"],
            f"{row['norm']:.4g}",
            "" if row["count"] is None else f"{row['count']:,}",
            moment(row["last_seen_s"]) if row["last_seen_s"] else "",
            " ".join(f"{value:.4g}" for value in row["values"]) + " ...",
        ]
        for row in found
    ]
    return aligned(columns, rows)


def diff_text(found: dict[str, Any], first: str, second: str) -> str:
    lines = [f"{first} -> {second}"]
    lines += [f"table {name}: only in {first}" for name in found["only_in_first"]]
    lines += [f"table {name}: only in {second}" for name in found["only_in_second"]]
    for table in found["tables"]:
        before, after = table["rows"]
        lines += ["", f"table {table['name']}: {before:,} -> {after:,} rows"]
        if table["dims"][0] != table["dims"][1]:
            lines.append(f"  dim {table['dims'][0]} -> {table['dims'][1]}: rows cannot be compared")
            continue
        lines.append(
            f"  {table['only_in_first']:,} gone, {table['only_in_second']:,} new, {table['same']:,} the same, "
            f"{table['changed']:,} changed (moved {table['mean_move']:.4g} on average, "
            f"{table['largest_move']:.4g} at most)"
        )
        if table["moves"]:
            rows = [[row["slot"], row["key"], row["text"], f"{row['move']:.4g}"] for row in table["moves"]]
            lines += ["  " + line for line in aligned(["slot", "key", "text", "moved"], rows).splitlines()]
    return "\n".join(lines)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; those without a word in any row are left out."""
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    cells = [[columns[i] for i in kept], *([row[i] for i in kept] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def size(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    raise AssertionError


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
