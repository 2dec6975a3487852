"""The table's examples and the contract's own file, checked and run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import xxhash

from penstock.data.schema import Schema
from penstock.features import Plan, check, read
from penstock.features.functions import FUNCTIONS
from penstock.features.resolve import resolve

CONTRACT = """<features xmlns="urn:penstock:features:1" name="ctr" seed="0">
  <dict  name="cities" path="cities.txt"/>                      <!-- a value a line -->
  <define name="tags" fn="split" from="tags_raw" sep="|"/>
  <slot  name="user"     id="1" fn="hash"      from="user_id"/>
  <slot  name="cityid"   id="2" fn="pickcat"   from="city" dict="cities" unknown="0"/>
  <slot  name="price_b"  id="3" fn="piecewise" from="price" bounds="0, 10, 50"/>
  <slot  name="cityprice" id="4" fn="combine"  from="city price_b"/>
  <slot  name="tagcity"  id="5" fn="descartes" from="tags city"/>
  <dense name="logprice" fn="formula" expr="log10(price + 1)"/>
  <dense name="age_z"    fn="normalize" from="age" mean="38" std="12"/>
</features>
"""


def plan_of(text: str, folder: Path, schema: Schema | None = None) -> Plan:
    path = folder / "features.xml"
    path.write_text(text, encoding="utf-8")
    file, faults = read(path)
    assert file is not None and not faults, faults
    checked = check(file, schema or Schema.unknown())
    assert not checked.failed, checked.faults
    return resolve(checked)


def test_the_contracts_file_maps_a_row_as_the_contract_says(tmp_path: Path) -> None:
    (tmp_path / "cities.txt").write_text("Roma\nParis\n")
    plan = plan_of(CONTRACT, tmp_path)
    row = {"tags_raw": "a|b", "user_id": "u1", "city": "Paris", "price": 10.0, "age": 50}
    found = {name: keys or dense for name, keys, _, dense in plan.apply_row(row)}
    hashed = lambda data: xxhash.xxh3_64_intdigest(data, seed=0)  # noqa: E731
    low = (1 << 52) - 1
    city = hashed(b"Paris").to_bytes(8, "little")
    bucket = 3 << 52 | 2
    assert found["user"] == [1 << 52 | hashed(b"u1") & low]
    assert found["cityid"] == [2 << 52 | 2]
    assert found["price_b"] == [bucket]
    assert found["cityprice"] == [4 << 52 | hashed(city + bucket.to_bytes(8, "little")) & low]
    assert found["tagcity"] == [
        5 << 52 | hashed(hashed(tag).to_bytes(8, "little") + city) & low for tag in (b"a", b"b")
    ]
    assert found["logprice"] == pytest.approx(1.0413927, abs=1e-7)
    assert found["age_z"] == 1.0


def test_every_slot_key_is_below_2_to_the_63(tmp_path: Path) -> None:
    slot = '<slot name="a" id="2047" fn="hash" from="s" null="key"/>'
    text = f'<features xmlns="urn:penstock:features:1" name="x">{slot}</features>'
    plan = plan_of(text, tmp_path)
    for value in ("a", None, "\x00", "é"):
        ((_, keys, _, _),) = plan.apply_row({"s": value})
        assert keys is not None and keys[0] < 1 << 63 and keys[0] >> 52 == 2047
    assert plan.apply_row({"s": None})[0][1] == [(2047 << 52) + (1 << 52) - 1]


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_the_example_of_a_function_runs(function: str, tmp_path: Path) -> None:
    (tmp_path / "cities.txt").write_text("Roma\n")
    columns = {
        "user_id": pa.array(["u"]), "position": pa.array([3]), "city": pa.array(["Roma"]), "price": pa.array([12.5]),
        "ts": pa.array([0], pa.timestamp("us")), "tags": pa.array([["a", "b"]]), "item_tags": pa.array([["a"]]),
        "user_tags": pa.array([["a", "c"]]), "clicked_items": pa.array([[1, 2]]), "tags_raw": pa.array(["a|b"]),
        "age": pa.array([50]), "price_b": pa.array([1]),
    }  # fmt: skip
    dictionary = '<dict name="cities" path="cities.txt"/>' if function == "pickcat" else ""
    text = f'<features xmlns="urn:penstock:features:1" name="x">{dictionary}{FUNCTIONS[function].example}</features>'
    batch = pa.record_batch(columns)
    mapped = plan_of(text, tmp_path, Schema.from_arrow(batch.schema)).apply(batch)
    assert mapped.num_rows == 1
    assert all(column.null_count == 0 for column in mapped.columns)
