"""A real Triton with a Python model of the signature that is told. `triton_server.py PORT SIGNATURE.json`.

HTTP on PORT, gRPC on PORT + 1, metrics on PORT + 2. Prints `ready` and serves until it is told to stop.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import numpy as np
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

TYPES = {"INT64": np.int64, "FP64": np.float64, "BOOL": np.bool_, "BYTES": bytes}


def main() -> None:
    port, signature = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())

    def infer(requests: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return [{"score": np.zeros((len(next(iter(each.values()))), 1), np.float32)} for each in requests]

    config = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Triton(config=config) as triton:
        triton.bind(
            model_name=signature["model"],
            infer_func=infer,
            inputs=[
                Tensor(name=name, dtype=TYPES[kind], shape=(1,), optional=True)
                for name, kind in signature["columns"].items()
            ],
            outputs=[Tensor(name="score", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=64, batching=True, batcher=DynamicBatcher()),
        )
        triton.run()
        print("ready", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
