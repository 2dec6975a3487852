"""The protocol between the runner and a node's worker: a spec goes in, events and a result come out, all JSON.

`PYTHON -m penstock.engines.worker SPEC.json` reads a `NodeSpec`, prints one event a line (NDJSON) on stdout and
leaves `result.json` beside the spec (temp + fsync + rename). Its JSON Schema is schemas/worker.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SPEC_VERSION = "worker/1"


class StepSpec(BaseModel):
    """A step with its values interpolated. An input `from=NODE.OUTPUT` arrives as the output's twin, type and path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["input", "process", "output"]
    name: str
    type: str = ""
    cls: str = ""
    attrs: Mapping[str, str] = Field(default_factory=dict)
    text: str = ""
    line: int = 0


class Preview(BaseModel):
    """Show the first rows of one step (or STEP.PORT) instead of writing outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    rows: int = 20


class NodeSpec(BaseModel):
    """All a worker needs to run one node once. Secrets are not here: they travel in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["worker/1"] = "worker/1"
    run: str
    node: str
    engine: str
    attempt: int = 1
    flow_file: str = ""
    flow_dir: str = "."
    #: This node's folder in the run store: scratch, spools, staging, result.json live below it.
    folder: str
    #: Where the run store keeps feature plans by fingerprint, for every node and run; "" = below `folder`.
    plans: str = ""
    #: Where steps keep what a later attempt of this run may go on from; "" = below `folder`.
    kept: str = ""
    conf: Mapping[str, str] = Field(default_factory=dict)
    args: tuple[str, ...] = ()
    steps: tuple[StepSpec, ...] = ()
    values: Mapping[str, str] = Field(default_factory=dict)
    #: "node.output" -> path or URL, for references beyond inputs (a features file's <dict from=...>).
    node_outputs: Mapping[str, str] = Field(default_factory=dict)
    lineage: Mapping[str, Any] = Field(default_factory=dict)
    threads: int = 0
    memory_bytes: int = 0
    preview: Preview | None = None


class OutputResult(BaseModel):
    """One written output: its final path, rows (None for models), bytes, content hash, schema as text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int | None = None
    size_bytes: int = 0
    content: str = ""
    columns: Mapping[str, str] = Field(default_factory=dict)


class NodeResult(BaseModel):
    """What a node leaves in result.json. `error` is empty when it is done; `problems` as `Problem.as_dict`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["worker/1"] = "worker/1"
    status: Literal["done", "failed"]
    error: str = ""
    hint: str = ""
    code: str = ""
    problems: tuple[Mapping[str, Any], ...] = ()
    outputs: Mapping[str, OutputResult] = Field(default_factory=dict)
    rows: Mapping[str, int] = Field(default_factory=dict)  # step or step.port -> rows, where it was counted
    metrics: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)  # step -> name -> value
    sections: tuple[Mapping[str, Any], ...] = ()  # for the report
    preview: tuple[Mapping[str, Any], ...] | None = None
    seconds: float = 0.0
    peak_bytes: int = 0  # anonymous memory, as its guard saw it
