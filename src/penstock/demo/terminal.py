"""The loop as a person sees it while it runs, on stderr: a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO

from penstock.demo.figures import HALF_LIFE, Measured, Point

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

#: name -> (what it is called, colour)
SHOWN = {
    "best": ("the best possible", "grey58"),
    "frozen": ("frozen", "dark_orange"),
    "loop": ("the loop", "bright_green"),
}
PLOT_HEIGHT, PLOT_MOST = 12, 96
#: Bits of a Braille character's dots by (column, row).
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def view(seconds: float, stream: TextIO | None = None) -> PlainView | LiveView:
    """The right one for where stderr goes. seconds: how long visitors will come."""
    out = stream or sys.stderr
    return LiveView(seconds) if out.isatty() else PlainView(out)


class PlainView:
    """A line every five seconds, and one when tastes change."""

    EVERY_S = 5.0

    def __init__(self, out: TextIO) -> None:
        self._out, self._next_s, self._told = out, self.EVERY_S, False

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, measured: Measured, point: Point) -> None:
        if measured.changed_s is not None and not self._told:
            self._told = True
            print(f"{measured.changed_s:5.0f} s  the visitors' taste changes", file=self._out, flush=True)
        if point.at_s >= self._next_s:
            self._next_s = point.at_s + self.EVERY_S
            print(line(point), file=self._out, flush=True)


def line(point: Point) -> str:
    """A moment on one line."""
    judged = ", ".join(f"{SHOWN[who][0]} {said_auc(point.auc[who])}" for who in ("loop", "frozen", "best"))
    return (
        f"{point.at_s:5.0f} s  {point.events_per_s:,.0f} events/s  freshness {said_seconds(point.fresh_p50)} "
        f"(p95 {said_seconds(point.fresh_p95)})  AUC {judged}  "
        f"rows {point.rows:,} (+{point.added:,} -{point.evicted:,})  delta {point.position[0]}:{point.position[1]}"
    )


class LiveView:
    """Curves and figures, redrawn in place. `console`: where; stderr by default."""

    def __init__(self, seconds: float, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._seconds = seconds
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, measured: Measured, point: Point) -> None:
        self._live.update(self.drawn(measured, point), refresh=True)

    def drawn(self, measured: Measured, point: Point) -> RenderableType:
        """The whole view of a moment."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        width = min(PLOT_MOST, self._console.width - 14)
        heading = Text.assemble(("the closed loop", "bold"), f"   {point.at_s:.0f} s of {self._seconds:.0f} s   ")
        if measured.changed_s is None:
            heading.append("visitors as the model knows them", "dim")
        else:
            heading.append(f"tastes changed {point.at_s - measured.changed_s:.0f} s ago", "bold magenta")
        legend = Text("        ")
        for who in ("best", "loop", "frozen"):
            name, colour = SHOWN[who]
            legend.append("━ ", colour).append(f"{name} ").append(f"{said_auc(point.auc[who])}   ", f"bold {colour}")
        title = Text(f"  AUC of served scores against clicks, half-life {HALF_LIFE:,} impressions", "dim")
        drawing = plot(measured.points, max(self._seconds, point.at_s), measured.changed_s, width)
        return Panel(
            Group(heading, Text(), title, drawing, legend, Text(), numbers(point)), padding=(0, 1), expand=False
        )


def numbers(point: Point) -> RenderableType:
    """The figures of a moment, side by side."""
    from rich.table import Table
    from rich.text import Text

    told = (
        ("events/s", f"{point.events_per_s:,.0f}", ""),
        ("click to served", said_seconds(point.fresh_p50), f"p95 {said_seconds(point.fresh_p95)}"),
        ("rows", f"{point.rows:,}", f"+{point.added:,} new, -{point.evicted:,} gone"),
        ("served", f"{point.position[0]}:{point.position[1]}", "generation:sequence"),
    )
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 4, 0, 0))
    table.add_row(*(Text(name, style="dim") for name, _, _ in told))
    table.add_row(*(Text(value, style="bold") for _, value, _ in told))
    table.add_row(*(Text(more, style="dim") for _, _, more in told))
    return table


def plot(points: Sequence[Point], seconds: float, changed_s: float | None, width: int) -> Text:
    """AUC over time in Braille dots, two by four a character; later names of `SHOWN` lie over earlier ones."""
    from rich.text import Text

    values = [value for point in points for value in point.auc.values() if value is not None]
    low, high = (min(values) - 0.01, max(values) + 0.01) if values else (0.5, 0.9)
    across, up = width * 2 - 1, PLOT_HEIGHT * 4 - 1
    cells: dict[tuple[int, int], tuple[int, str]] = {}
    if changed_s is not None:
        column = round(changed_s / seconds * across) // 2
        cells |= {(row, column): (0x47, "magenta") for row in range(PLOT_HEIGHT)}
    for who, (_, colour) in SHOWN.items():
        path = [(p.at_s, value) for p in points if (value := p.auc[who]) is not None]
        dots = [(round(at / seconds * across), round((high - value) / (high - low) * up)) for at, value in path]
        for x, y in joined(dots):
            at = (y // 4, x // 2)
            bits, old = cells.get(at, (0, colour))
            cells[at] = ((bits if old == colour else 0) | DOTS[x % 2][y % 4], colour)
    text = Text()
    for row in range(PLOT_HEIGHT):
        value = high - (row * 4 + 1.5) / up * (high - low)
        text.append(f"  {value:.3f} " if row % 3 == 1 else "        ", "dim").append("│", "dim")
        for column in range(width):
            bits, colour = cells.get((row, column), (0, ""))
            text.append(chr(0x2800 + bits), colour)
        text.append("\n")
    text.append("        └" + "─" * width + "\n", "dim")
    middle = f"{seconds / 2:.0f} s"
    text.append(f"         0{middle:^{width - 1 - len(f'{seconds:.0f} s')}}{seconds:.0f} s", "dim")
    return text


def joined(dots: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The dots of the line through some: one a column, and what lies between them in a column."""
    found = list(dots[:1])
    for (x, y), (to_x, to_y) in pairwise(dots):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        found += [(x + round((to_x - x) * n / steps), y + round((to_y - y) * n / steps)) for n in range(1, steps + 1)]
    return found


def said_auc(value: float | None) -> str:
    return "  –  " if value is None else f"{value:.4f}"


def said_seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
