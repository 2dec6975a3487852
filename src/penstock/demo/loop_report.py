"""`report.html` of the closed loop: one page with the curves that the terminal showed, and the table of numbers."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from penstock.demo import curves
from penstock.demo.curves import Curve, drawing
from penstock.demo.figures import HALF_LIFE, Figures, Point
from penstock.operators.report import page, table

#: name -> (what it is called, at the end of its curve)
JUDGED = {
    "best": ("the best possible: the simulator's true chances", "best possible"),
    "loop": ("the loop: learns from clicks as they come", "loop"),
    "frozen": ("frozen: the same model, trained once", "frozen"),
}


def report(figures: Figures) -> str:
    """The page, whole: nothing is loaded from anywhere, no script."""
    body = f"""<style>{curves.STYLE}</style>
<h1>What visitors do now changes what is served</h1>
<p class="sub">A model served twice: once as it was trained, once in a closed loop. After {figures.changed_s:.0f} s the
visitors' taste changes.</p>
{_cards(figures)}
<h2>Who ranks best</h2>
<p class="sub">AUC of the scores that were served, against the clicks that came; decayed, half-life
{HALF_LIFE:,} impressions.</p>
{_judged(figures)}
<h2>In numbers</h2>
{_numbers(figures)}
<h2>From a click to an answer that knows of it</h2>
{_fresh(figures)}
<p class="caption">Seconds from the click's own time to the first reply that stands at a place of the chain (generation,
sequence) which covers the click's sample; of the last five seconds.</p>
<h2>Load</h2>
{_load(figures)}
<h2>Rows come and go</h2>
{_rows(figures)}
<p class="caption">Keys of new visitors and items become rows as they are seen; rows whose keys do not come back leave
the trainer, and the host by tombstones in the deltas.</p>
<h2>Nothing lost, nothing twice</h2>
{_counted(figures)}
<p class="caption">Counted by the visitors, the join and the trainer, each for itself. What ran: <code>penstock
serve</code>, <code>penstock online join</code>, <code>penstock online run</code>, a process each, and topics on
disk between them.</p>
"""
    return page("The closed loop", body)


def _judged(figures: Figures) -> str:
    found = [
        Curve(name, who, path, f"{short} {path[-1][1]:.3f}", dashed=who == "best")
        for who, (name, short) in JUDGED.items()
        if (path := _path(figures, lambda point, who=who: point.auc[who]))  # type: ignore[misc]
    ]
    return _drawn(found, figures, "AUC", height=400)


def _fresh(figures: Figures) -> str:
    found = [
        Curve(name, colour, path, name)
        for name, colour, path in (
            ("95th percentile", "second", _path(figures, lambda point: point.fresh_p95)),
            ("median", "first", _path(figures, lambda point: point.fresh_p50)),
        )
    ]
    return _drawn(found, figures, "seconds", floor=0.0)


def _load(figures: Figures) -> str:
    path = _path(figures, lambda point: point.events_per_s)
    return _drawn([Curve("impressions and clicks a second", "first", path)], figures, "events/s", floor=0.0)


def _rows(figures: Figures) -> str:
    found = [
        Curve("rows in the table", "first", _path(figures, lambda point: point.rows), "in the table"),
        Curve("added", "loop", _path(figures, lambda point: point.added), "added"),
        Curve("evicted", "frozen", _path(figures, lambda point: point.evicted), "evicted"),
    ]
    return _drawn(found, figures, "rows", floor=0.0)


def _path(figures: Figures, read: Callable[[Point], float | None]) -> list[tuple[float, float]]:
    return [(point.at_s, value) for point in figures.points if (value := read(point)) is not None]


def _drawn(found: list[Curve], figures: Figures, y_label: str, *, height: int = 250, floor: float | None = None) -> str:
    mark = "tastes change"
    return drawing(
        [curve for curve in found if curve.points], seconds=figures.seconds, y_label=y_label, height=height,
        marked_s=figures.changed_s, mark=mark, floor=floor,
    )  # fmt: skip


def _cards(figures: Figures) -> str:
    last = figures.phases[-1].auc
    told = (
        ("AUC at the end, loop", _auc(last["loop"])),
        ("AUC at the end, frozen", _auc(last["frozen"])),
        ("the best possible", _auc(last["best"])),
        ("click to served, median", _seconds(figures.fresh_p50)),
        ("95th percentile", _seconds(figures.fresh_p95)),
        ("events a second", f"{figures.events_per_s:,.0f}"),
    )
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in told
    )
    return f'<div class="cards">{cards}</div>'


def _numbers(figures: Figures) -> str:
    rows: list[list[object]] = [
        [phase.name, phase.impressions, *(_rounded(phase.auc[who]) for who in JUDGED), _share(phase.auc)]
        for phase in figures.phases
    ]
    return table(["", "impressions", "best possible", "loop", "frozen", "loop's lift, % of the best"], rows)


def _counted(figures: Figures) -> str:
    counts = figures.counts
    rows: list[list[object]] = [
        ["impressions", counts["impressions"], counts["impressions_joined"], None],
        ["clicks", counts["clicks"], counts["clicks_joined"], None],
        ["samples", counts["impressions"] + counts["clicks"], counts["samples"], counts["learnt"]],
        ["put aside", None, None, counts["quarantined"]],
        ["deltas published", None, None, counts["deltas"]],
    ]
    return table(["", "visitors", "join", "trainer"], rows)


def _share(auc: dict[str, float | None]) -> float | None:
    """The loop's AUC above .5, in percent of the best's."""
    loop, best = auc["loop"], auc["best"]
    return None if loop is None or best is None or best <= 0.5 else round(100 * (loop - 0.5) / (best - 0.5), 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _auc(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
