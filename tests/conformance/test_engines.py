"""What every engine must do, found by the public entry point and run through the worker's own door.

To add an engine: give `NODES` a node of it that copies one input to one output. Everything else follows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from penstock.engines import NodeResult, NodeSpec, StepSpec, UnknownEngine, engine
from penstock.engines.schema import worker_schema

ROWS = "id,x\n1,2\n2,3\n"

INPUT = StepSpec(kind="input", name="rows", type="csv", attrs={"path": "@in.csv"})
#: engine -> a node that copies in.csv to out.csv / a node that fails after it has begun / one that takes for ever
NODES: dict[str, dict[str, dict[str, Any]]] = {
    "local": {
        "copies": {
            "steps": [INPUT, StepSpec(kind="output", name="o", type="csv", attrs={"from": "rows", "path": "@out.csv"})]
        },
        "fails": {
            "steps": [
                INPUT,
                StepSpec(kind="process", name="bad", type="expect", attrs={"from": "rows", "where": "x > 2"}),
                StepSpec(kind="output", name="o", type="csv", attrs={"from": "bad", "path": "@out.csv"}),
            ]
        },
    },
    "command": {
        "copies": {
            "args": ["sh", "-c", 'echo copying; cat "$PENSTOCK_IN_rows" > "$PENSTOCK_OUT_o"'],
            "steps": [INPUT, StepSpec(kind="output", name="o", type="csv", attrs={"path": "@out.csv"})],
        },
        "fails": {
            "args": ["sh", "-c", 'cat "$PENSTOCK_IN_rows" > "$PENSTOCK_OUT_o"; echo dear me >&2; exit 3'],
            "steps": [INPUT, StepSpec(kind="output", name="o", type="csv", attrs={"path": "@out.csv"})],
        },
    },
}  # fmt: skip


def spec_of(name: str, kind: str, folder: Path) -> NodeSpec:
    node = NODES[name][kind]
    steps = tuple(
        s.model_copy(update={"attrs": {k: v.replace("@", f"{folder}/") for k, v in s.attrs.items()}})
        for s in node["steps"]
    )
    scratch = folder / "node"
    scratch.mkdir()
    (folder / "in.csv").write_text(ROWS)
    return NodeSpec(
        run="r",
        node="n",
        engine=name,
        folder=str(scratch),
        flow_dir=str(folder),
        steps=steps,
        args=tuple(node.get("args", ())),
    )


def work(spec: NodeSpec, **environment: str) -> tuple[int, NodeResult, list[Mapping[str, Any]], str]:
    """Run the worker: its status, result, events and log."""
    file = Path(spec.folder) / "spec.json"
    file.write_text(spec.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "penstock.engines.worker", file], capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    result = NodeResult.model_validate_json((Path(spec.folder) / "result.json").read_bytes())
    return done.returncode, result, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_installed_engines_are_all_tested() -> None:
    assert {ep.name for ep in entry_points(group="penstock.engines")} == set(NODES)


def test_an_unknown_engine_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UnknownEngine, match="did you mean 'local'"):
        engine("locla")


@pytest.mark.parametrize("name", NODES)
class TestEngine:
    def test_it_has_a_name_and_typed_settings_that_refuse_the_unknown(self, name: str) -> None:
        found = engine(name)
        assert found.name == name and issubclass(found.settings, BaseModel)
        with pytest.raises(ValueError, match="nonsense"):
            found.settings.model_validate({"nonsense": "1"})

    def test_it_names_an_interpreter_that_exists(self, name: str) -> None:
        assert Path(engine(name).python({})).exists()

    def test_it_checks_a_sound_node_without_a_word(self, name: str, tmp_path: Path) -> None:
        assert engine(name).check(spec_of(name, "copies", tmp_path)) == ()

    def test_it_copies_and_tells_what_it_wrote(self, name: str, tmp_path: Path) -> None:
        status, result, events, _ = work(spec_of(name, "copies", tmp_path))
        assert (status, result.status) == (0, "done"), result.error
        assert (tmp_path / "out.csv").read_text() == ROWS
        output = result.outputs["o"]
        assert output.path == str(tmp_path / "out.csv") and output.size_bytes == len(ROWS)
        assert output.content and list(output.columns) == ["id", "x"]
        assert [events[0]["event"], events[-1]["event"]] == ["started", "done"]

    def test_what_it_says_follows_the_published_schema(self, name: str, tmp_path: Path) -> None:
        spec = spec_of(name, "copies", tmp_path)
        _, result, events, _ = work(spec)
        schema = worker_schema()
        for part, value in (("NodeSpec", spec), ("NodeResult", result)):
            jsonschema.validate(value.model_dump(mode="json"), {"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]})
        for event in events:
            jsonschema.validate(event, {"$ref": "#/$defs/Event", "$defs": schema["$defs"]})

    def test_the_same_content_has_the_same_hash(self, name: str, tmp_path: Path) -> None:
        hashes = []
        for part in ("one", "two"):
            (tmp_path / part).mkdir()
            hashes.append(work(spec_of(name, "copies", tmp_path / part))[1].outputs["o"].content)
        assert hashes[0] == hashes[1]

    def test_a_failure_leaves_the_old_output_and_no_litter(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "out.csv").write_text("old")
        status, result, events, _ = work(spec_of(name, "fails", tmp_path))
        assert (status, result.status) == (1, "failed") and result.error and not result.outputs
        assert (tmp_path / "out.csv").read_text() == "old"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "node", "out.csv"]
        assert events[-1]["event"] == "failed" and "Traceback" not in result.error

    def test_secrets_come_from_the_environment_and_stay_out_of_what_is_kept(self, name: str, tmp_path: Path) -> None:
        spec = spec_of(name, "copies", tmp_path)
        (tmp_path / "hidden-name.csv").write_text(ROWS)
        first = spec.steps[0].model_copy(update={"attrs": {"path": f"{tmp_path}/${{secret.FILE}}"}})
        spec = spec.model_copy(update={"steps": (first, *spec.steps[1:])})
        status, result, events, log = work(spec, PENSTOCK_SECRET_FILE="hidden-name.csv")
        assert status == 0, result.error
        kept = json.dumps(events) + log + result.model_dump_json() + Path(spec.folder, "spec.json").read_text()
        assert "hidden-name" not in kept

    def test_a_worker_without_its_parent_stops_at_once(self, name: str, tmp_path: Path) -> None:
        spec = spec_of(name, "copies", tmp_path)
        file = Path(spec.folder) / "spec.json"
        file.write_text(spec.model_dump_json())
        done = subprocess.run(
            [sys.executable, "-m", "penstock.engines.worker", file], env={**os.environ, "PENSTOCK_WORKER_PARENT": "1"}
        )
        assert done.returncode in (128 + signal.SIGKILL, 128 + signal.SIGTERM)
        assert not (tmp_path / "out.csv").exists()


# --- the command engine's own promises ---


def command(folder: Path, script: str, outputs: tuple[StepSpec, ...] = (), **more: Any) -> NodeSpec:
    scratch = folder / "node"
    scratch.mkdir(exist_ok=True)
    return NodeSpec(run="r", node="n", engine="command", folder=str(scratch), flow_dir=str(folder),
                    args=("sh", "-c", script), steps=outputs, **more)  # fmt: skip


def test_a_commands_last_words_are_repeated(tmp_path: Path) -> None:
    _, result, _, log = work(command(tmp_path, "for i in 1 2 3; do echo line $i >&2; done; exit 5"))
    assert result.error == "'sh' of node 'n' ended with exit status 5: line 3"
    assert "line 1" in result.hint and result.code == "RUN005" and "line 2" in log


def test_a_command_that_writes_nothing_is_told_where_to(tmp_path: Path) -> None:
    output = StepSpec(kind="output", name="o", type="csv", attrs={"path": f"{tmp_path}/o.csv"})
    _, result, _, _ = work(command(tmp_path, "true", (output,)))
    assert result.code == "RUN006" and "PENSTOCK_OUT_o" in result.hint


def test_a_command_that_writes_another_format_is_refused(tmp_path: Path) -> None:
    output = StepSpec(kind="output", name="o", type="parquet", attrs={"path": f"{tmp_path}/o.parquet"})
    _, result, _, _ = work(command(tmp_path, 'echo text > "$PENSTOCK_OUT_o"', (output,)))
    assert result.code == "RUN006" and "no parquet" in result.error
    assert not (tmp_path / "o.parquet").exists()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = command(tmp_path, "").model_copy(update={"args": ("no-such-program",)})
    _, result, _, _ = work(spec)
    assert result.code == "RUN007" and "no-such-program" in result.error


def test_a_command_takes_its_children_along_when_it_is_stopped(tmp_path: Path) -> None:
    file = Path(command(tmp_path, "").folder) / "spec.json"
    file.write_text(command(tmp_path, "sleep 300 & echo $! > child; wait").model_dump_json())
    worker = subprocess.Popen([sys.executable, "-m", "penstock.engines.worker", file], process_group=0,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 20
    while not ((tmp_path / "child").exists() and (tmp_path / "child").read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int((tmp_path / "child").read_text())
    worker.terminate()
    assert worker.wait(10) == 143
    while Path(f"/proc/{child}").exists() and "zombie" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_node_without_a_command_is_a_problem_at_check(tmp_path: Path) -> None:
    spec = command(tmp_path, "").model_copy(update={"args": (), "steps": (StepSpec(kind="process", name="p"),)})
    assert [f.code for f in engine("command").check(spec)] == ["RUN020", "RUN021"]
