"""BentoML with ONNX Runtime: one worker, raw bodies by a Starlette app mounted on the service. PORT FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import onnxruntime as ort
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SLOTS, DENSE = 26, 13


def run(ids: Any, dense: Any) -> Any:
    return session.run(["score"], {"ids": ids, "dense": dense})[0]


async def of_json(request: Request) -> Response:
    asked = orjson.loads(await request.body())
    score = run(np.array(asked["ids"], np.int64), np.array(asked["dense"], np.float32))
    return Response(orjson.dumps({"score": score}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def of_binary(request: Request) -> Response:
    body = await request.body()
    rows = len(body) // (SLOTS * 8 + DENSE * 4)
    ids = np.frombuffer(body, np.int64, rows * SLOTS).reshape(rows, SLOTS)
    dense = np.frombuffer(body, np.float32, rows * DENSE, rows * SLOTS * 8).reshape(rows, DENSE)
    return Response(run(ids, dense).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    os.environ["SERVING_FOLDER"] = sys.argv[2]
    here = Path(__file__)
    command = [sys.executable, "-m", "bentoml", "serve", f"{here.stem}:Net", "--working-dir", str(here.parent)]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", sys.argv[1], "--api-workers", "1"])

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(
    Path(os.environ["SERVING_FOLDER"]) / "gather.onnx", options, providers=["CPUExecutionProvider"]
)
routes = [Route("/json", of_json, methods=["POST"]), Route("/binary", of_binary, methods=["POST"])]


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(Starlette(routes=routes), path="/")
class Net:
    pass
