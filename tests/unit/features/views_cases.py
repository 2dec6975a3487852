"""Views as tests declare them, and what they should tell, worked out row by row from the definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.features.views import View, read

#: One view with everything: the newest values, each function, both kinds of window, a TTL.
SHOP = """<views xmlns="urn:penstock:views:1" name="shop" description="what the shop knows">
  <entity name="user" key="user_id"/>
  <entity name="item" key="shop item" type="str int"/>
  <view name="user_clicks" entity="user" owner="growth" description="what a user did lately"{ttl}>
    <source {source}/>
    <column name="city" type="str"/>
    <column name="newest_price" type="float" from="price"/>
    <aggregate name="clicks" function="count" sliding="60s" every="10s"/>
    <aggregate name="priced" function="count" from="price" type="float" tumbling="30s"/>
    <aggregate name="spend" function="sum" from="price" type="float" decimals="2" sliding="60s" every="10s"/>
    <aggregate name="spend_before" function="sum" from="price" type="float" decimals="2" tumbling="30s"/>
    <aggregate name="bought" function="sum" from="pieces" type="int" sliding="40s" every="20s"/>
    <aggregate name="price_mean" function="mean" from="price" type="float" decimals="2" sliding="60s" every="10s"/>
    <aggregate name="last_city" function="last" from="city" type="str" sliding="40s" every="20s"/>
    <aggregate name="last_new" function="last" from="new" type="bool" tumbling="30s"/>
  </view>
</views>
"""
#: name -> (function, column, size in seconds, pane in seconds, tumbling)
AGGREGATES: dict[str, tuple[str, str, int, int, bool]] = {
    "clicks": ("count", "", 60, 10, False),
    "priced": ("count", "price", 30, 30, True),
    "spend": ("sum", "price", 60, 10, False),
    "spend_before": ("sum", "price", 30, 30, True),
    "bought": ("sum", "pieces", 40, 20, False),
    "price_mean": ("mean", "price", 60, 10, False),
    "last_city": ("last", "city", 40, 20, False),
    "last_new": ("last", "new", 30, 30, True),
}


def shop(folder: Path, source: str, ttl: str = "") -> View:
    path = folder / "views.xml"
    path.write_text(SHOP.format(source=source, ttl=f' ttl="{ttl}"' if ttl else ""))
    return read(path).view("user_clicks")


def expected(
    events: Sequence[dict[str, Any]], user: str | None, at_s: int | None, ttl_s: int | None = None
) -> dict[str, Any]:
    """What the view tells of a user at a second, from all events, in the order of their source."""
    known = [e for e in events if user is not None and at_s is not None and e["user_id"] == user]
    known = [e for e in known if e["s"] is not None and e["s"] <= (at_s or 0)]
    known.sort(key=lambda e: e["s"])  # stable: of two at one time the later one stays the later
    if known and ttl_s is not None and (at_s or 0) - known[-1]["s"] > ttl_s:
        known = []
    told: dict[str, Any] = {
        "city": known[-1]["city"] if known else None,
        "newest_price": known[-1]["price"] if known else None,
    }
    for name, (function, column, size, pane, tumbling) in AGGREGATES.items():
        now = (at_s or 0) // pane
        panes = {now - 1} if tumbling else set(range(now - size // pane + 1, now + 1))
        within = [e for e in known if e["s"] // pane in panes]
        values = [e[column] for e in within if e[column] is not None] if column else within
        cents = [round(v * 100) for v in values] if column == "price" else []
        if function == "count":
            told[name] = len(values)
        elif function == "sum":
            told[name] = sum(cents) / 100 if column == "price" else sum(values)
        elif function == "mean":
            told[name] = sum(cents) / 100 / len(cents) if cents else None
        else:
            told[name] = values[-1] if values else None
    return told
