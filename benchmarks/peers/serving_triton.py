"""Triton with its Python backend, as nvidia-pytriton starts it. PORT FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

SLOTS, DENSE = 26, 13


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(folder / "gather.onnx", options, providers=["CPUExecutionProvider"])

    @batch
    def infer(ids: np.ndarray, dense: np.ndarray) -> dict[str, np.ndarray]:
        [score] = session.run(["score"], {"ids": ids, "dense": dense})
        return {"score": score[:, None]}

    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_thread_count=1
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="net",
            infer_func=infer,
            inputs=[
                Tensor(name="ids", dtype=np.int64, shape=(SLOTS,)),
                Tensor(name="dense", dtype=np.float32, shape=(DENSE,)),
            ],
            outputs=[Tensor(name="score", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=1024),
        )
        triton.serve()


if __name__ == "__main__":
    main()
