"""The features step: in a node of the local engine, and across nodes through the run store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.data.schema import Column, ModelInfo, Schema
from penstock.engines.local import LocalEngine
from penstock.engines.spec import NodeSpec, StepSpec
from penstock.errors import DataError, PenstockError
from penstock.features import Plan
from penstock.features.operators import Features
from penstock.operators.base import CheckContext

FILE = """<features xmlns="urn:penstock:features:1" name="ctr">
  <slot name="user" id="1" fn="hash" from="user_id" weight="w"/>
  <slot name="city" id="2" fn="pickcat" from="town" dict="{dict}"/>
  <dense name="z" fn="normalize" from="age" {fit}/>
</features>"""

FITTED = FILE.format(dict="fit", fit='fit="true"')
RAW = Schema(
    tuple(
        Column(name, type_)
        for name, type_ in (("user_id", pa.string()), ("town", pa.string()), ("age", pa.int64()), ("w", pa.float64()))
    )
)


class Quiet:
    def progress(self, step: str, message: str = "", rows: int = 0, done: int = 0, total: int = 0) -> None: ...

    def log(self, message: str) -> None: ...


def run(folder: Path, steps: list[tuple[str, str, str, Mapping[str, str]]], **more: Any) -> None:
    specs = tuple(StepSpec(kind=k, name=n, type=t, attrs=dict(a)) for k, n, t, a in steps)  # type: ignore[arg-type]
    scratch = folder / "run"
    scratch.mkdir(exist_ok=True)
    spec = NodeSpec(
        run="r", node="n", engine="local", folder=str(scratch), plans=str(folder / "plans"), flow_dir=str(folder),
        steps=specs, **more,
    )  # fmt: skip
    LocalEngine().run(spec, Quiet())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "features.xml").write_text(FITTED)
    frame = pl.DataFrame(
        {
            "user_id": ["a", "b", "c", "d"],
            "town": ["x", "y", "y", None],
            "age": [1, 2, 3, 4],
            "w": [1.0, 2.0, None, 0.5],
        }
    )
    frame.write_parquet(tmp_path / "train.parquet")
    frame.with_columns(pl.col("age") + 100, pl.lit("x").alias("town")).write_parquet(tmp_path / "test.parquet")
    return tmp_path


def source(folder: Path, name: str) -> tuple[str, str, str, Mapping[str, str]]:
    return ("input", name, "parquet", {"path": str(folder / f"{name}.parquet")})


def target(folder: Path, of: str) -> tuple[str, str, str, Mapping[str, str]]:
    return ("output", f"{of}_out", "parquet", {"from": of, "path": str(folder / f"{of}.parquet")})


def features(folder: Path, name: str, **attrs: str) -> tuple[str, str, str, Mapping[str, str]]:
    given = {"map": str(folder / "features.xml"), "keep": "age", **attrs}
    return ("process", name, "features", {k: v for k, v in given.items() if v})


def test_test_rows_are_mapped_by_what_the_training_rows_taught(rows: Path) -> None:
    run(
        rows,
        [
            source(rows, "train"), source(rows, "test"),
            features(rows, "m_train", **{"from": "train"}),
            features(rows, "m_test", **{"from": "test", "fit_from": "train"}),
            features(rows, "again", **{"from": "test", "plan": "m_train"}),
            features(rows, "refitted", **{"from": "test"}),
            *(target(rows, name) for name in ("m_train", "m_test", "again", "refitted")),
        ],
    )  # fmt: skip
    found = {name: pl.read_parquet(rows / f"{name}.parquet") for name in ("m_train", "m_test", "again", "refitted")}
    assert found["m_train"].columns == ["age", "user", "user__weight", "city", "z"]
    assert found["m_train"]["user__weight"].to_list() == [[1.0], [2.0], [], [0.5]]
    assert found["m_train"]["z"].to_list() == pytest.approx([-1.3416407, -0.4472136, 0.4472136, 1.3416407])
    # y is the most frequent town of the training rows, so x has index 2 there and 1 where the test rows taught.
    assert found["m_test"]["city"].to_list() == [[2 << 52 | 2]] * 4
    assert found["refitted"]["city"].to_list() == [[2 << 52 | 1]] * 4
    assert found["again"].equals(found["m_test"])
    assert found["m_test"]["z"].min() > 80


def test_a_parquet_file_leads_the_next_node_to_its_plan(rows: Path) -> None:
    run(rows, [source(rows, "train"), features(rows, "mapped", **{"from": "train"}), target(rows, "mapped")])
    file = pq.ParquetFile(rows / "mapped.parquet")
    schema = Schema.from_arrow(file.schema_arrow.with_metadata(file.metadata.metadata))
    assert schema.with_role("slot") == ("user", "user__weight", "city")
    assert schema.with_role("dense") == ("z",)
    assert schema.with_role("kept") == ("age",)
    plan = Plan.load(rows / "plans" / schema.plan)
    assert plan.fingerprint == schema.plan
    run(
        rows,
        [source(rows, "mapped"), source(rows, "test"), target(rows, "next"),
         features(rows, "next", map="", **{"from": "test", "plan": "mapped"})],
    )  # fmt: skip
    assert pl.read_parquet(rows / "next.parquet").equals(plan.apply(pl.read_parquet(rows / "test.parquet"), ["age"]))


def test_a_plan_folder_is_applied_as_it_is(rows: Path) -> None:
    run(rows, [source(rows, "train"), features(rows, "mapped", **{"from": "train"}), target(rows, "mapped")])
    (saved,) = (rows / "plans").iterdir()
    run(
        rows,
        [source(rows, "test"), features(rows, "by", **{"from": "test", "plan": str(saved)}), target(rows, "by")],
    )
    assert pl.read_parquet(rows / "by.parquet")["city"].to_list() == [[2 << 52 | 2]] * 4


def test_a_plan_that_is_gone_is_said(rows: Path) -> None:
    run(rows, [source(rows, "train"), features(rows, "mapped", **{"from": "train"}), target(rows, "mapped")])
    for plan in (rows / "plans").iterdir():
        plan.rename(rows / "gone")
    steps = [source(rows, "mapped"), source(rows, "test"), features(rows, "x", **{"from": "test", "plan": "mapped"})]
    with pytest.raises(DataError, match="is not in the run store"):
        run(rows, [*steps, target(rows, "x")])


def test_a_row_error_names_the_row_of_the_whole_frame(rows: Path) -> None:
    (rows / "features.xml").write_text(
        '<features xmlns="urn:penstock:features:1" name="x"><slot name="p" id="1" fn="identity" from="p"/></features>'
    )
    pl.DataFrame({"p": [*range(300_000), -5, -6], "age": 0}).write_parquet(rows / "long.parquet")
    steps = [source(rows, "long"), features(rows, "m", **{"from": "long"}), target(rows, "m")]
    with pytest.raises(PenstockError, match=r"row 300,001: 'p' is -5"):
        run(rows, steps)
    assert not (rows / "m.parquet").exists()


def test_rows_stay_in_order_through_the_stream(rows: Path) -> None:
    (rows / "features.xml").write_text(
        '<features xmlns="urn:penstock:features:1" name="x"><slot name="p" id="1" fn="identity" from="age"/></features>'
    )
    pl.DataFrame({"age": range(400_000)}).write_parquet(rows / "long.parquet")
    run(rows, [source(rows, "long"), features(rows, "m", **{"from": "long"}), target(rows, "m")])
    mapped = pl.read_parquet(rows / "m.parquet")
    assert mapped["age"].to_list() == list(range(400_000))
    assert (mapped["p"].list.first() & ((1 << 52) - 1)).cast(pl.Int64).equals(mapped["age"], check_names=False)


def test_the_dictionary_of_another_node_is_an_edge(rows: Path) -> None:
    path = rows / "features.xml"
    path.write_text(
        FILE.format(dict="towns", fit='mean="1" std="1"').replace(
            "<slot", '<dict name="towns" from="prep.words"/><slot', 1
        )
    )
    step = Features.model_validate({"from": "train", "map": str(path)})
    assert step.node_references(CheckContext()) == ("prep.words",)
    promised = CheckContext(node_outputs={"prep.words": Schema.unknown()})
    assert not step.check({"train": RAW}, promised).failed
    (fault,) = step.check({"train": RAW}, CheckContext(node_outputs={"prep.wards": Schema.unknown()})).faults
    assert (fault.code, fault.hint) == ("FEAT016", "did you mean 'prep.wards'?")
    (rows / "words.txt").write_text("y\nx\n")
    steps = [source(rows, "train"), features(rows, "m", **{"from": "train"}), target(rows, "m")]
    run(rows, steps, node_outputs={"prep.words": str(rows / "words.txt")})
    assert pl.read_parquet(rows / "m.parquet")["city"].to_list() == [[2 << 52 | 2], [2 << 52 | 1], [2 << 52 | 1], []]


def test_the_check_knows_the_columns_before_anything_runs(rows: Path) -> None:
    step = Features.model_validate({"from": "train", "map": str(rows / "features.xml"), "keep": "age"})
    assert step.staged() and step.files(CheckContext()) == (rows / "features.xml",)
    schema = step.check({"train": RAW}, CheckContext()).outputs[""]
    assert isinstance(schema, Schema) and not schema.open
    assert schema.names == ("age", "user", "user__weight", "city", "z")
    flat = step.model_copy(update={"form": "flat"}).check({"train": RAW}, CheckContext()).outputs[""]
    assert isinstance(flat, Schema) and flat.names == ("age", "keys", "weights", "dense")


@pytest.mark.parametrize(
    ("attrs", "inputs", "code", "said"),
    [
        ({"keep": "agee"}, {}, "FEAT010", "keep names 'agee'"),
        ({"keep": "age", "form": "flat"}, {"train": Schema((*RAW.columns, Column("keys", pa.string())))}, "", ""),
        ({"map": ""}, {}, "FEAT003", "neither map nor plan"),
        ({"map": "nowhere.xml"}, {}, "FEAT001", "cannot be read"),
        ({"plan": "/no/such/bundle"}, {}, "FEAT026", "no bundle or plan folder"),
        ({"plan": "models:/ctr/1"}, {}, "REG005", "no model registry at"),
        ({"plan": "train"}, {}, "FEAT026", "carries no feature plan"),
        ({"plan": "model"}, {"model": ModelInfo("gbdt")}, "", ""),
        ({"fit_from": "less"}, {"less": Schema((Column("age", pa.int64()),))}, "FEAT010", "learns from 'town'"),
    ],
)
def test_what_is_wrong_with_the_step(
    rows: Path, attrs: dict[str, str], inputs: dict[str, Schema | ModelInfo], code: str, said: str
) -> None:
    step = Features.model_validate({"from": "train", "map": str(rows / "features.xml"), **attrs})
    faults = step.check({"train": RAW, **inputs}, CheckContext()).faults
    assert [fault.code for fault in faults] == ([code] if code else [])
    assert all(said in fault.message for fault in faults)


def test_a_kept_column_may_not_have_the_name_of_a_feature(rows: Path) -> None:
    step = Features.model_validate({"from": "train", "map": str(rows / "features.xml"), "keep": "age user"})
    raw = Schema((*RAW.columns, Column("user", pa.string())))
    (fault,) = step.check({"train": raw}, CheckContext()).faults
    assert fault.code == "FEAT008"
