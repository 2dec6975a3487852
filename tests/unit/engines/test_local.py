"""The local engine's promises: needed steps only, each row once, whole outputs, errors that name the step."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Column, Schema
from penstock.engines.local import LocalEngine
from penstock.engines.spec import NodeResult, NodeSpec, Preview, StepSpec
from penstock.errors import DataError, PenstockError, ProblemsFound
from penstock.operators.base import (
    CheckContext,
    Checked,
    Fault,
    Input,
    Model,
    ModelInfo,
    Output,
    Process,
    Ref,
    Result,
    RunContext,
)

seen: Counter[str] = Counter()
lock = threading.Lock()


class Numbers(Input):
    """`rows` integers from 0 in column `i`."""

    rows: int = 10

    def check(self, context: CheckContext) -> Checked:
        return Checked({"": Schema((Column("i", pa.int64(), "kept"),))})

    def read(self, context: RunContext) -> pl.LazyFrame:
        seen[f"read {context.step}"] += 1
        return pl.LazyFrame({"i": range(self.rows)}, schema={"i": pl.Int64})


class Passing(Process):
    """Counts every row that passes, as a user's own function would."""

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        step = context.step

        def count(frame: pl.DataFrame) -> pl.DataFrame:
            with lock:
                seen[step] += frame.height
            return frame

        frame: pl.LazyFrame = inputs[self.from_]
        return frame.map_batches(count, streamable=True)

    def check(self, inputs: Mapping[str, Any], context: CheckContext) -> Checked:
        return Checked({"": inputs[self.from_]})


class Even(Process):
    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        return inputs[self.from_].filter(pl.col("i") % 2 == 0)  # type: ignore[no-any-return]


class Halves(Process):
    """Cuts at the median: reads its frame when it runs, so it ends a stage."""

    def staged(self) -> bool:
        return True

    def ports(self) -> tuple[str, ...]:
        return ("low", "high")

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> dict[str, pl.LazyFrame]:
        frame = inputs[self.from_]
        cut = context.collect(frame.select(pl.col("i").median())).item()
        return {"low": frame.filter(pl.col("i") < cut), "high": frame.filter(pl.col("i") >= cut)}


class Learn(Process):
    """A model of one number, and what it saw of its input's roles."""

    label: str = ""
    model: Ref | None = None

    def check(self, inputs: Mapping[str, Any], context: CheckContext) -> Checked:
        return Checked({"": ModelInfo("learn")})

    def staged(self) -> bool:
        return True

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Result:
        rows = sum(batch.num_rows for batch in context.batches(inputs[self.from_]))
        info = context.info(self.from_)
        assert isinstance(info, Schema)
        context.metrics({"rows": rows, "kept": len(info.with_role("kept"))})
        context.show({"kind": "text", "text": "learnt"})
        (context.scratch / "weights").write_text(str(rows))
        return Result({"": Model(context.scratch)}, {"": ModelInfo("learn", label="i")})


class Raises(Process):
    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        def fail(frame: pl.DataFrame) -> pl.DataFrame:
            raise KeyError("featuers")

        return inputs[self.from_].map_batches(fail, streamable=True)  # type: ignore[no-any-return]


class RaisesAtOnce(Process):
    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        raise ZeroDivisionError("by zero")


class Wrong(Process):
    """Gives back what is no frame."""

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Any:
        return {"": 7}


class Strict(Process):
    """A cast that fails on its data: Polars' own error."""

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        return inputs[self.from_].with_columns(pl.col("i").cast(pl.UInt8))  # type: ignore[no-any-return]


class Refuses(Process):
    def check(self, inputs: Mapping[str, Any], context: CheckContext) -> Checked:
        names = ", ".join(inputs[self.from_].names)
        return Checked({}, (Fault("OPER101", f"there is no column 'x' among {names}"),))


class Keep(Output):
    suffix: ClassVar[str | None] = ".parquet"

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        if isinstance(value, Model):
            target.write_text((value.path / "weights").read_text())
            return None
        return value.sink_parquet(target, lazy=True)  # type: ignore[no-any-return]


class Told:
    """Remembers the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []

    def progress(self, step: str, message: str = "", rows: int = 0, done: int = 0, total: int = 0) -> None:
        self.events.append((step, message, rows))

    def log(self, message: str) -> None:
        self.events.append(("", message, 0))


def step(kind: Any, name: str, cls: type, **attrs: Any) -> StepSpec:
    written = {key.rstrip("_"): str(value) for key, value in attrs.items()}
    return StepSpec(kind=kind, name=name, cls=f"{__name__}:{cls.__name__}", attrs=written, line=7)


def builtin(kind: Any, name: str, type_: str, **attrs: Any) -> StepSpec:
    written = {key.rstrip("_"): str(value) for key, value in attrs.items()}
    return StepSpec(kind=kind, name=name, type=type_, attrs=written, line=8)


def run(folder: Path, *steps: StepSpec, preview: Preview | None = None, told: Told | None = None) -> NodeResult:
    seen.clear()
    store = folder / "store"
    spec = NodeSpec(
        run="r1", node="n", engine="local", flow_file="f.xml", folder=str(store), steps=steps, preview=preview
    )
    return LocalEngine().run(spec, told or Told())


def read(result: NodeResult, output: str) -> list[int]:
    return pl.read_parquet(result.outputs[output].path)["i"].to_list()


def test_an_output_gets_the_rows_and_the_result_counts_them(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        step("input", "numbers", Numbers),
        step("process", "even", Even, from_="numbers"),
        step("output", "out", Keep, from_="even", path=tmp_path / "out.parquet"),
    )
    assert read(result, "out") == [0, 2, 4, 6, 8]
    assert result.outputs["out"].path == str(tmp_path / "out.parquet")
    assert result.outputs["out"].rows == 5
    assert result.outputs["out"].columns == {"i": "int64"}
    assert result.outputs["out"].size_bytes == os.path.getsize(tmp_path / "out.parquet")
    assert result.rows == {"numbers": 10, "even": 5, "out": 5}
    assert result.status == "done"


def test_an_output_without_a_path_lives_in_the_run_store(tmp_path: Path) -> None:
    result = run(tmp_path, step("input", "numbers", Numbers), step("output", "out", Keep, from_="numbers"))
    assert Path(result.outputs["out"].path).is_relative_to(tmp_path / "store")
    assert read(result, "out") == list(range(10))


def test_a_step_that_no_output_needs_does_not_run(tmp_path: Path) -> None:
    run(
        tmp_path,
        step("input", "used", Numbers),
        step("input", "unused", Numbers),
        step("process", "learnt", Learn, from_="unused"),
        step("output", "out", Keep, from_="used"),
    )
    assert seen == {"read used": 1}


def test_a_step_that_two_outputs_need_sees_each_row_once(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        step("input", "numbers", Numbers, rows=300_000),
        step("process", "passing", Passing, from_="numbers"),
        step("process", "even", Even, from_="passing"),
        step("output", "all", Keep, from_="passing"),
        step("output", "some", Keep, from_="even"),
    )
    assert seen["passing"] == 300_000
    assert result.outputs["all"].rows == 300_000
    assert result.outputs["some"].rows == 150_000
    assert read(result, "all") == list(range(300_000))


def test_sharing_inside_sharing_still_sees_each_row_once(tmp_path: Path) -> None:
    outputs = {"train": "parts.train", "test": "parts.test", "top": "counted", "again": "passing"}
    result = run(
        tmp_path,
        step("input", "numbers", Numbers, rows=20_000),
        step("process", "passing", Passing, from_="numbers"),
        builtin("process", "parts", "split", from_="passing", by="hash", column="i", at="0.8"),
        builtin("process", "counted", "aggregate", from_="parts.train", columns="count(*) as i"),
        *[builtin("output", name, "parquet", from_=reference) for name, reference in outputs.items()],
    )
    assert seen == {"read numbers": 1, "passing": 20_000}
    assert result.rows["numbers"] == 20_000 and read(result, "top") == [result.outputs["train"].rows]
    assert sorted(read(result, "train") + read(result, "test")) == read(result, "again")
    assert not (tmp_path / "store" / "spool").exists()


def test_user_code_above_a_stage_is_spooled_rather_than_run_again(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        step("input", "numbers", Numbers, rows=1000),
        step("process", "passing", Passing, from_="numbers"),
        step("process", "even", Even, from_="passing"),
        step("process", "parts", Halves, from_="even"),
        step("output", "low", Keep, from_="parts.low"),
        step("output", "high", Keep, from_="parts.high"),
    )
    assert seen["passing"] == 1000
    assert read(result, "low") == list(range(0, 499, 2))
    assert read(result, "high") == list(range(500, 1000, 2))
    assert result.rows["even"] == 500
    spools = [p.name for p in (tmp_path / "store" / "spool").iterdir()]
    assert "even.parquet" in spools and "passing.parquet" not in spools


def test_a_frame_read_by_training_and_by_an_output_is_spooled(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        step("input", "numbers", Numbers, rows=1000),
        step("process", "passing", Passing, from_="numbers"),
        step("process", "model", Learn, from_="passing"),
        step("output", "rows", Keep, from_="passing"),
        step("output", "bundle", Keep, from_="model"),
    )
    assert seen["passing"] == 1000
    assert Path(result.outputs["bundle"].path).read_text() == "1000"
    assert result.outputs["bundle"].rows is None
    assert result.metrics == {"model": {"rows": 1000, "kept": 1}}
    assert result.sections == ({"step": "model", "kind": "text", "text": "learnt"},)


def test_a_step_read_by_one_stage_only_is_not_spooled(tmp_path: Path) -> None:
    run(
        tmp_path,
        step("input", "numbers", Numbers, rows=1000),
        step("process", "passing", Passing, from_="numbers"),
        step("process", "model", Learn, from_="passing"),
        step("output", "bundle", Keep, from_="model"),
    )
    assert seen["passing"] == 1000
    assert not (tmp_path / "store" / "spool").exists()


def test_a_preview_shows_the_first_rows_and_writes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    result = run(
        tmp_path,
        step("input", "numbers", Numbers),
        step("process", "parts", Halves, from_="numbers"),
        step("output", "out", Keep, from_="parts.low", path=target),
        preview=Preview(step="parts.high", rows=2),
    )
    assert result.preview == ({"i": 5}, {"i": 6})
    assert not target.exists()


def test_a_users_function_that_raises_names_its_step_and_line(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match=r"step 'bad' failed: KeyError: 'featuers' \(test_local.py:\d+\)") as caught:
        run(
            tmp_path,
            step("input", "numbers", Numbers),
            step("process", "bad", Raises, from_="numbers"),
            step("output", "out", Keep, from_="bad"),
        )
    assert caught.value.code == "RUN103"


def test_a_user_operator_that_raises_or_gives_nonsense_is_told_as_such(tmp_path: Path) -> None:
    for cls, said in (
        (RaisesAtOnce, r"step 'bad' failed: ZeroDivisionError: by zero \(test_local.py:\d+\)"),
        (Wrong, "step 'bad' gave a value of type int, not a frame or a model"),
    ):
        with pytest.raises(PenstockError, match=said) as caught:
            run(
                tmp_path,
                step("input", "numbers", Numbers),
                step("process", "bad", cls, from_="numbers"),
                step("output", "out", Keep, from_="bad"),
            )
        assert caught.value.code == "RUN103"


def test_a_run_that_fails_leaves_every_old_target_whole(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    good.write_text("old")
    bad.write_text("old")
    with pytest.raises(DataError, match=r"output 'good' and output 'bad' failed: conversion from `i64` to `u8`"):
        run(
            tmp_path,
            step("input", "numbers", Numbers, rows=300),
            step("process", "strict", Strict, from_="numbers"),
            step("output", "good", Keep, from_="numbers", path=good),
            step("output", "bad", Keep, from_="strict", path=bad),
        )
    assert (good.read_text(), bad.read_text()) == ("old", "old")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "store" and "lock" not in p.name) == [
        "bad.parquet",
        "good.parquet",
    ]


def test_a_fault_found_with_the_real_columns_is_the_same_problem_as_at_check(tmp_path: Path) -> None:
    with pytest.raises(ProblemsFound) as caught:
        run(
            tmp_path,
            step("input", "numbers", Numbers),
            step("process", "refuses", Refuses, from_="numbers"),
            step("output", "out", Keep, from_="refuses"),
        )
    assert str(caught.value) == "f.xml:7: OPER101 process 'refuses': there is no column 'x' among i"


def test_an_unknown_attribute_is_a_problem_on_the_steps_line(tmp_path: Path) -> None:
    with pytest.raises(ProblemsFound, match=r"f.xml:7: OPER100 input 'numbers': rowz: Extra inputs"):
        run(tmp_path, step("input", "numbers", Numbers, rowz=1), step("output", "out", Keep, from_="numbers"))


def test_empty_frames_pass_through_every_kind_of_step(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        step("input", "numbers", Numbers, rows=0),
        step("process", "passing", Passing, from_="numbers"),
        step("process", "even", Even, from_="passing"),
        step("process", "model", Learn, from_="even"),
        step("output", "out", Keep, from_="even"),
        step("output", "bundle", Keep, from_="model"),
    )
    assert read(result, "out") == []
    assert result.outputs["out"].rows == 0
    assert result.metrics["model"]["rows"] == 0
