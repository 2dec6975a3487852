"""MLServer with ONNX Runtime in a runtime of its own: numpy in, numpy out, no workers between. PORT FOLDER."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Net(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(sys.argv[2] + "/gather.onnx", options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        ids, dense = payload.inputs
        given = {
            "ids": np.array(ids.data.root, np.int64).reshape(ids.shape),
            "dense": np.array(dense.data.root, np.float32).reshape(dense.shape),
        }
        [score] = self._session.run(["score"], given)
        output = ResponseOutput(name="score", shape=list(score.shape), datatype="FP32", data=score.tolist())
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    port = int(sys.argv[1])
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_endpoint=None, parallel_workers=0, debug=False
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="net", implementation=Net)])


if __name__ == "__main__":
    asyncio.run(main())
