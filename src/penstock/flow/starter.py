"""What `penstock flow init NAME` writes: a flow to run at once, its features file, and rows to learn from."""

from __future__ import annotations

import csv
import io
import math
import random
import re
from datetime import datetime, timedelta
from pathlib import Path

from penstock.data.atomic import write_text
from penstock.errors import RequestError
from penstock.flow.xml import read_xml, write_xml

ROWS = 1_000

_FLOW = """\
<!-- From clicks to a judged model. Run it: penstock flow run {file} -->
<flow xmlns="urn:penstock:flow:1" name="{name}" description="Will this user click? From raw rows to a judged model">
  <param name="data" type="path" default="data" description="the folder with clicks.csv"/>

  <!-- Samples: read the rows, drop what cannot be true, learn from the past and judge on the newest fifth. -->
  <node name="samples" engine="local">
    <input   name="clicks" type="csv" path="${{data}}/clicks.csv" types="ts:timestamp user_id:str"/>
    <process name="plausible" type="filter" from="clicks" where="price >= 0 and city is not null"/>
    <process name="parts" type="split" from="plausible" by="time" column="ts" at="0.8"/>
    <output  name="train" type="parquet" from="parts.train"/>
    <output  name="test" type="parquet" from="parts.test"/>
  </node>

  <!-- Model: features.xml turns columns into features, the model learns from them, evaluate judges it. -->
  <node name="model" engine="local">
    <input   name="train" from="samples.train"/>
    <input   name="test" from="samples.test"/>
    <process name="mapped" type="features" from="train" map="features.xml" keep="label"/>
    <process name="clicks" type="gbdt_lr" from="mapped" label="label" categorical="city_no device_no"
             trees="40" leaves="7" min_rows="10"/>
    <process name="scored" type="predict" from="test" model="clicks"/>
    <process name="quality" type="evaluate" from="scored" label="label"/>
    <output  name="bundle" type="model" from="clicks" path="out/model"/>
    <output  name="metrics" type="json" from="quality" path="out/metrics.json"/>
  </node>
</flow>
"""

_FEATURES = """\
<!-- What each column means to the model: slots become 64-bit keys, dense ones become numbers. -->
<features xmlns="urn:penstock:features:1" name="NAME" seed="0">
  <slot  name="user" id="1" fn="hash" from="user_id"/>
  <slot  name="place" id="2" fn="hash" from="city"/>
  <slot  name="screen" id="3" fn="hash" from="device"/>
  <slot  name="price_band" id="4" fn="piecewise" from="price" bounds="5, 15, 30, 60"/>
  <slot  name="place_screen" id="5" fn="combine" from="city device"/>
  <dense name="log_price" fn="formula" expr="log10(price + 1)"/>
  <dense name="age_years" fn="identity" from="age"/>
  <!-- Trees take numbers: a place's number in a dictionary, which is learnt from the training rows. -->
  <dense name="city_no" fn="pickcat" from="city" dict="fit:min_count=5"/>
  <dense name="device_no" fn="pickcat" from="device" dict="fit:min_count=5"/>
</features>
"""


def write_starter(folder: Path) -> list[Path]:
    """Write into a folder that is new or empty; the flow file first. Raises `RequestError` where it is neither."""
    name = re.sub(r"\W", "_", folder.resolve().name, flags=re.ASCII)
    name = f"flow_{name}" if not name or name[0].isdigit() else name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} is there already", "choose a name that is free, or an empty folder", "FLOW080")
    flow = folder / f"{name}.xml"
    reading = read_xml(_FLOW.format(name=name, file=flow.name).encode(), str(flow))
    if reading.flow is None:
        raise AssertionError(reading.problems)
    texts = {
        flow: write_xml(reading.flow),
        folder / "features.xml": _FEATURES.replace("NAME", name),
        folder / "data" / "clicks.csv": starter_rows(),
    }
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def starter_rows(count: int = ROWS) -> str:
    """Clicks that follow the price, the place, the device and the user: the same text every time.

    The logarithm of the odds is a sum of an effect of the price, one of the pair of place and device, and one of the
    user's own; one row in fifty has no city, one in a hundred an impossible price, for the filter to find.
    """
    chance = random.Random(20_260_101)  # noqa: S311  not for secrets
    cities, devices = ("paris", "london", "tokyo", "lima"), ("phone", "laptop", "tablet")
    pair = {(c, d): chance.gauss(0, 1.4) for c in cities for d in devices}
    users = [chance.gauss(0, 0.7) for _ in range(60)]
    start = datetime(2026, 1, 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "user_id", "city", "device", "price", "age", "ts"])
    for row in range(count):
        user = int(chance.random() * len(users))
        city, device = (options[int(chance.random() * len(options))] for options in (cities, devices))
        price = math.exp(chance.gauss(2.7, 0.9))
        odds = 1.2 * (2.7 - math.log(price)) + pair[city, device] + users[user] - 0.3
        label = int(chance.random() < 1 / (1 + math.exp(-odds)))
        shown_price = -1.0 if row % 100 == 57 else round(price, 2)
        shown_city = "" if row % 50 == 23 else city
        when = start + timedelta(minutes=20 * row)
        age = 18 + int(chance.random() * 50)
        writer.writerow([label, f"u{user}", shown_city, device, shown_price, age, when.isoformat(sep=" ")])
    return text.getvalue()
