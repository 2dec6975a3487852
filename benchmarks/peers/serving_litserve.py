"""LitServe with ONNX Runtime, its own JSON. PORT FOLDER."""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort


class Net(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(sys.argv[2] + "/gather.onnx", options, providers=["CPUExecutionProvider"])

    # LitServe reads this annotation: it must not be a string.
    def decode_request(self, request: dict) -> dict[str, Any]:
        return {"ids": np.array(request["ids"], np.int64), "dense": np.array(request["dense"], np.float32)}

    def predict(self, inputs: dict[str, Any]) -> Any:
        return self.session.run(["score"], inputs)[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"score": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Net(api_path="/json"), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error", access_log=False)
