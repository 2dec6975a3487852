"""Ray Serve with ONNX Runtime: one replica, raw bodies through its proxy. PORT FOLDER."""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

SLOTS, DENSE = 26, 13


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0})
class Net:
    def __init__(self, folder: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(folder + "/gather.onnx", options, providers=["CPUExecutionProvider"])

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.url.path == "/binary":
            rows = len(body) // (SLOTS * 8 + DENSE * 4)
            ids: Any = np.frombuffer(body, np.int64, rows * SLOTS).reshape(rows, SLOTS)
            dense: Any = np.frombuffer(body, np.float32, rows * DENSE, rows * SLOTS * 8).reshape(rows, DENSE)
            return Response(self._run(ids, dense).tobytes(), media_type="application/octet-stream")
        asked = orjson.loads(body)
        score = self._run(np.array(asked["ids"], np.int64), np.array(asked["dense"], np.float32))
        return Response(
            orjson.dumps({"score": score}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
        )

    def _run(self, ids: Any, dense: Any) -> Any:
        return self.session.run(["score"], {"ids": ids, "dense": dense})[0]


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Net.bind(sys.argv[2]), route_prefix="/")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
