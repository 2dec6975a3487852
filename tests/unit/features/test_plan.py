"""What a plan promises: its fingerprint, its folder, its schema, its errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Column
from penstock.errors import DataError
from penstock.features import Plan, PlanError, load

from .test_examples import CONTRACT, plan_of

ROWS = pl.DataFrame(
    {
        "user_id": ["u", None],
        "city": ["Roma", "x"],
        "price": [1.0, None],
        "tags_raw": ["a", None],
        "age": [1, 2],
        "label": [1, 0],
    }
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "cities.txt").write_text("Roma\nParis\n")
    return plan_of(CONTRACT, tmp_path)


def test_the_fingerprint_sees_what_changes_the_keys_and_nothing_else(plan: Plan, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "towns.txt").write_bytes(b"\xef\xbb\xbfRoma\r\nParis")
    same = CONTRACT.replace("cities.txt", "towns.txt").replace("a value a line", "another comment")
    assert plan_of(same, moved).fingerprint == plan.fingerprint
    for old, new in (
        ('seed="0"', 'seed="1"'),
        ("0, 10, 50", "0, 10, 51"),
        ('unknown="0"', 'unknown="9"'),
        ('mean="38"', 'mean="39"'),
    ):
        assert plan_of(CONTRACT.replace(old, new), tmp_path).fingerprint != plan.fingerprint, new
    (tmp_path / "cities.txt").write_text("Roma\nOslo\n")
    assert plan_of(CONTRACT, tmp_path).fingerprint != plan.fingerprint


def test_a_saved_plan_loads_elsewhere_and_maps_the_same(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "bundle" / "plan")
    shutil.move(tmp_path / "bundle", tmp_path / "moved")
    (tmp_path / "cities.txt").unlink()
    loaded = load(str(tmp_path / "moved"))
    assert loaded.fingerprint == plan.fingerprint
    assert loaded.apply(ROWS).equals(plan.apply(ROWS))


def test_the_schema_says_what_apply_gives(plan: Plan) -> None:
    for form in ("slots", "flat"):
        mapped = plan.apply(ROWS, ["label"], form)
        schema = plan.schema([Column("label", pa.int64())], form)
        assert schema.names == tuple(mapped.columns)
        assert schema.plan == plan.fingerprint
        assert schema.with_role("kept") == ("label",)
        types = [pl.from_arrow(pa.schema([(c.name, c.type)]).empty_table()).schema[c.name] for c in schema]
        assert types == mapped.dtypes
    assert plan.columns == ("tags_raw", "user_id", "city", "price", "age")


def test_no_rows_give_no_rows(plan: Plan) -> None:
    empty = plan.apply(ROWS.clear(), ["label"])
    assert empty.height == 0
    assert empty.columns == plan.apply(ROWS, ["label"]).columns


def test_flat_has_every_key_and_a_weight_for_each(plan: Plan) -> None:
    slots, flat = plan.apply(ROWS), plan.apply(ROWS, form="flat")
    for i in range(ROWS.height):
        keys = [key for name in plan.slots for key in slots[name][i]]
        assert flat["keys"][i].to_list() == keys
        assert flat["weights"][i].to_list() == [1.0] * len(keys)
        assert flat["dense"][i].to_list() == [slots[name][i] for name in plan.dense]


def test_a_row_without_meaning_is_named(tmp_path: Path) -> None:
    text = (
        '<features xmlns="urn:penstock:features:1" name="x"><slot name="p" id="1" fn="identity" from="p"/></features>'
    )
    plan = plan_of(text, tmp_path)
    with pytest.raises(DataError, match=r"row 3: 'p' is -1"):
        plan.apply(pl.DataFrame({"p": [0, 1, -1, -2]}))
    with pytest.raises(DataError, match="FEAT025"):
        plan.apply_row({"p": (1 << 52) - 1})
    assert plan.apply_row({"p": (1 << 52) - 2})[0][1] == [(1 << 52) + (1 << 52) - 2]


def test_a_missing_column_is_named_with_its_neighbour(plan: Plan) -> None:
    with pytest.raises(DataError, match=r"reads 'city'(.|\n)*did you mean 'citi'"):
        plan.apply(ROWS.rename({"city": "citi"}))


def test_a_column_of_another_type_is_told_apart(plan: Plan) -> None:
    with pytest.raises(DataError, match="FEAT012"):
        plan.apply(ROWS.with_columns(pl.col("user_id").is_null().cast(pl.Float64)))


@pytest.mark.parametrize("damage", ["no file", "not json", "other version", "no dictionary", "other dictionary"])
def test_a_damaged_plan_does_not_load(plan: Plan, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "plan"
    plan.save(folder)
    file = folder / "features.plan"
    if damage == "no file":
        file.unlink()
    elif damage == "not json":
        file.write_text('{"penstock":')
    elif damage == "other version":
        file.write_text(file.read_text().replace("plan/1", "plan/9"))
    elif damage == "no dictionary":
        (folder / "dictionaries" / "cities.dict").unlink()
    else:
        file.write_text(file.read_text().replace('"entries":2,"sha256":"', '"entries":2,"sha256":"00'))
    with pytest.raises(PlanError, match="FEAT026"):
        Plan.load(folder).apply(ROWS)


def test_a_registry_that_is_not_there_is_said() -> None:
    with pytest.raises(Exception, match="REG005 there is no model registry"):
        load("models:/ctr@production")
