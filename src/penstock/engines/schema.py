"""schemas/worker.json: what a launcher or an engine in another language must speak, made from the classes."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from penstock.engines.spec import NodeResult, NodeSpec

_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
#: event -> its fields beyond `event` and `time`
_EVENTS: dict[str, dict[str, Any]] = {
    "started": {"node": _TEXT, "attempt": _COUNT, "pid": _COUNT},
    "progress": {"step": _TEXT, "message": _TEXT, "rows": _COUNT, "done": _COUNT, "total": _COUNT},
    "log": {"message": _TEXT},
    "done": {"error": _TEXT, "seconds": _NUMBER},
    "failed": {"error": _TEXT},
}


def worker_schema() -> dict[str, Any]:
    """The JSON Schema of a worker's spec (in), events (out, one a line) and result.json (out)."""
    _, schema = models_json_schema(
        [(NodeSpec, "validation"), (NodeResult, "validation")], ref_template="#/$defs/{model}"
    )
    events = [
        {
            "type": "object",
            "properties": {"event": {"const": name}, "time": _NUMBER, **fields},
            "required": ["event", "time", *fields],
        }
        for name, fields in _EVENTS.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "worker/1",
        "description": "PYTHON -m penstock.engines.worker SPEC.json: NodeSpec in, one Event a line on stdout, "
        "NodeResult in result.json beside the spec.",
        "$defs": {**schema["$defs"], "Event": {"oneOf": events}},
        "oneOf": [{"$ref": "#/$defs/NodeSpec"}, {"$ref": "#/$defs/NodeResult"}, {"$ref": "#/$defs/Event"}],
    }


def text() -> str:
    """As it stands in schemas/worker.json."""
    return json.dumps(worker_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
