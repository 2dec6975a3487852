"""Lists come as JSON arrays, or as the JSON text that a client sent to the host: the same rows come of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from penstock.features.operators import Features
from penstock.training.bundle import Bundle, load
from penstock.training.live.places import BAD, SAMPLE, Marks
from penstock.training.live.samples import Chunk, Mapper
from penstock.training.online_operators import Lr

FEATURES = """<features xmlns="urn:penstock:features:1" name="lists">
  <slot name="tag" id="1" fn="hash" from="tags"/>
  <slot name="place" id="2" fn="identity" from="places"/>
  <dense name="both" fn="overlap" from="tags liked"/>
</features>
"""
ROW = {"tags": ["a", "b\"c"], "places": [1, 7], "liked": ["b\"c", "d"], "label": 1}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, runner: Callable[[Path], Any]) -> Bundle:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "features.xml").write_text(FEATURES)
    frame = pl.DataFrame([ROW, {"tags": ["x"], "places": [2], "liked": ["x"], "label": 0}] * 20)
    run = runner(folder)
    mapping = Features.model_validate({"from": "rows", "map": str(folder / "features.xml"), "keep": "label"})
    mapped = run(mapping, {"rows": frame})
    step = Lr.model_validate({"from": "rows", "label": "label"})
    roles = {"tag": "slot", "place": "slot", "both": "dense"}
    made = run(step, {"rows": mapped.outputs[""]}, roles=roles, plan=mapped.infos[""].plan, threads=1)
    return load(made.outputs[""].path)


def mapped(bundle: Bundle, samples: Sequence[Mapping[str, Any]], quarantine: Path | None = None) -> Chunk:
    encoder, old = bundle.encoder, bundle.scorer
    mapper = Mapper(
        bundle, encoder, old.means, old.scales, types={}, threads=1, quarantine=quarantine, thinning=None
    )  # fmt: skip
    count = len(samples)
    offsets = np.arange(40, 40 + count)
    marks = Marks(np.zeros(count, np.int32), offsets, offsets.copy(), np.full(count, SAMPLE, np.uint8))
    return mapper.chunk(marks, [json.dumps(sample).encode() for sample in samples], 0)


def sample(**changed: Any) -> dict[str, Any]:
    features = {name: value for name, value in ROW.items() if name != "label"}
    return {**features, "_id": "r/0", "_label": 1, **changed}


def content(chunk: Chunk) -> list[Any]:
    matrix = chunk.rows.matrix
    return [matrix.numbers.tolist(), *((slot.offsets.tolist(), slot.keys.tolist()) for slot in matrix.slots)]


def text(value: Any) -> str:
    return json.dumps(value)


def test_the_text_of_a_list_is_the_list(bundle: Bundle) -> None:
    rows = [["a", None], [], None, ["a", "a"], ["b\"c"], ["\u00e9\u4e2d", "line\nbreak"]]  # fmt: skip
    arrays = [sample(tags=row, places=[at, at + 1]) for at, row in enumerate(rows)]
    texts = [sample(tags=text(row), places=text([at, at + 1]), liked=text(ROW["liked"])) for at, row in enumerate(rows)]
    assert content(mapped(bundle, texts)) == content(mapped(bundle, arrays))
    assert content(mapped(bundle, [*texts[:3], *arrays[3:]])) == content(mapped(bundle, arrays))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("a|b", "not the text of a list"), ("", "not the text of a list"), ('["a"', "not the text of a list"),
        ('["a"] ["b"]', "not the text of a list"), ('{"a": 1}', "not the text of a list"),
        ('["[1]", ["a"]]', "a list is not of type str"), ("[1, {}]", "an object is not of type str"),
        ("[" * 5000 + "]" * 5000, "not the text of a list"), (text(["x" * 2**20]), "more than a list may have"),
    ],
)  # fmt: skip
def test_text_that_is_no_list_is_put_aside_with_its_offset(bundle: Bundle, tmp_path: Path, bad: str, why: str) -> None:
    quarantine = tmp_path / "bad.jsonl"
    chunk = mapped(bundle, [sample(tags=text(["a"])), sample(tags=bad), sample()], quarantine)
    assert chunk.rows.count == 2 and chunk.records.fates.tolist() == [SAMPLE, BAD, SAMPLE]
    told = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert (
        [each["offset"] for each in told] == [41]
        and told[0]["reason"].startswith("tags: ")
        and why in told[0]["reason"]
    )
