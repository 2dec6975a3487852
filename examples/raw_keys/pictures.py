"""Draws what train.py measured: `python pictures.py figures.json FOLDER` writes two SVG files, raw-keys-....svg."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, RIGHT = 720.0, 64.0, 150.0
GREY, RULE, TEXT = "#6b7280", "#e5e7eb", "#111827"
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    name: str
    colour: str
    points: Points
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines, each named at its right end. `y`: lowest, highest, step of the rules; `digits`: after the point."""

    title: str
    lines: Sequence[Line]
    x: tuple[float, float]
    y: tuple[float, float, float]
    digits: int
    top: float
    height: float
    below: str = ""
    x_ticks: Sequence[float] = ()

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), self.top + self.height * (1 - up)

    def svg(self) -> Iterator[str]:
        yield text(LEFT, self.top - 14, self.title, TEXT, weight=600)
        low, high, step = self.y
        for number in range(round((high - low) / step) + 1):
            value = low + number * step
            _, y = self.at(self.x[0], value)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{RULE}"/>'
            yield text(LEFT - 8, y + 4, f"{value:,.{self.digits}f}", GREY, "end")
        for value in self.x_ticks:
            x, y = self.at(value, low)
            yield text(x, y + 18, f"{value:,.0f}", GREY, "middle")
        if self.below:
            yield text(LEFT + (WIDTH - LEFT - RIGHT) / 2, self.top + self.height + 38, self.below, GREY, "middle")
        lowest = -1e9
        for line in sorted(self.lines, key=lambda line: self.at(*line.points[-1])[1]):
            places = [self.at(*point) for point in line.points]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            dash = ' stroke-dasharray="5 4"' if line.dashed else ""
            yield f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>'
            # Names of lines that end together stand below one another.
            lowest = max(lowest + 15, places[-1][1] + 4)
            yield text(places[-1][0] + 8, lowest, line.name, line.colour)


def text(x: float, y: float, what: str, colour: str, anchor: str = "start", weight: int = 400) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(what)}</text>"


def page(height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}"'
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    return (
        "\n".join([f'{head} {font} role="img"><rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>"]) + "\n"
    )


def memory(found: dict[str, Any]) -> str:
    """The users' table over the month, and the AUC of each day under it."""
    runs = found["runs"]
    days = len(runs["keep"])

    def each(run: str, name: str, scale: float = 1.0) -> Points:
        return [(line["day"], line[name] / scale) for line in runs[run]]

    blue, orange, ticks = "#1d4ed8", "#c2410c", [1, *range(5, days + 1, 5)]
    size = Panel(
        "Memory of the users' table, MB",
        [
            Line("nothing evicted", orange, each("keep", "bytes", 1e6)),
            Line(f"evicted after {found['ttl_days']} days", blue, each("evict", "bytes", 1e6)),
        ],
        (1, days),
        (0, *_rules(max(line["bytes"] for line in runs["keep"]) / 1e6)),
        0,
        40,
        190,
        x_ticks=ticks,
    )
    quality = Panel(
        "AUC of the day, each row scored before it is learnt from",
        [
            Line("the truth's own", GREY, list(enumerate(found["best"], 1)), dashed=True),
            Line("nothing evicted", orange, each("keep", "auc")),
            Line(f"evicted after {found['ttl_days']} days", blue, each("evict", "auc"), dashed=True),
            Line("no rows for users", "#7c3aed", each("nobody", "auc")),
        ],
        (1, days),
        (0.64, 0.84, 0.04),
        2,
        300,
        190,
        "day",
        ticks,
    )
    return page(545, [*size.svg(), *quality.svg()])


def admission(found: dict[str, Any]) -> str:
    """What rows cost and bring: share of rows against change in AUC, by the sighting that makes a row."""
    runs = found["runs"]
    days = len(runs["cross1"])
    slots = {
        "users": ("#c2410c", ["keep", "user2", "user3", "user5"]),
        "user x category": ("#1d4ed8", ["cross1", "cross2", "cross3", "cross5"]),
    }
    lines, marks = [], []
    for name, (colour, kinds) in slots.items():
        rows = [runs[kind][days - 1]["rows"] for kind in kinds]
        aucs = [mean_auc(runs[kind][:days]) for kind in kinds]
        points = [(100 * n / rows[0], 1e3 * (auc - aucs[0])) for n, auc in zip(rows, aucs, strict=True)]
        lines.append(Line(name, colour, points[::-1]))
        marks += [(point, sighting, colour) for point, sighting in zip(points[1:], ("2nd", "3rd", "5th"), strict=True)]
    low = math.floor(min(y for line in lines for _, y in line.points) - 0.3)
    panel = Panel(
        f"Change of the mean AUC of days 2 to {days}, thousandths, by the sighting that makes a row",
        [replace(line, name="") for line in lines],
        (0, 100),
        (low, 1, 1),
        0,
        40,
        190,
        f"rows after {days} days, % of those that the 1st sighting makes",
        [0, 20, 40, 60, 80, 100],
    )
    parts = list(panel.svg())
    for point, sighting, colour in marks:
        x, y = panel.at(*point)
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>']
        parts += [text(x + 6, y + 16, sighting, TEXT)]
    for line in lines:
        x, y = panel.at(*line.points[0])
        parts += [text(x - 10, y + 4, line.name, line.colour, "end")]
    return page(285, parts)


def mean_auc(days: Sequence[dict[str, float]], first: int = 2) -> float:
    """The mean of the days' AUCs from day `first` on."""
    aucs = [line["auc"] for line in days if line["day"] >= first]
    return sum(aucs) / len(aucs)


def _rules(most: float) -> tuple[float, float]:
    """(highest, step) of a scale from 0 with four to eight rules."""
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if most / step <= 6)
    return -(-most // step) * step, float(step)


def main() -> None:
    figures, folder = map(Path, sys.argv[1:])
    found = json.loads(figures.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw-keys-memory.svg").write_text(memory(found))
    (folder / "raw-keys-admission.svg").write_text(admission(found))


if __name__ == "__main__":
    main()
