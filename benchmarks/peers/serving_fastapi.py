"""FastAPI with ONNX Runtime, by hand: no pydantic, orjson both ways, the run inside the event loop. PORT FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

SLOTS, DENSE = 26, 13
app = FastAPI(openapi_url=None)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@app.post("/json")
async def of_json(request: Request) -> Response:
    asked = orjson.loads(await request.body())
    ids, dense = np.array(asked["ids"], np.int64), np.array(asked["dense"], np.float32)
    [score] = net.run(["score"], {"ids": ids, "dense": dense})
    return Response(orjson.dumps({"score": score}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@app.post("/binary")
async def of_binary(request: Request) -> Response:
    body = await request.body()
    rows = len(body) // (SLOTS * 8 + DENSE * 4)
    ids = np.frombuffer(body, np.int64, rows * SLOTS).reshape(rows, SLOTS)
    dense = np.frombuffer(body, np.float32, rows * DENSE, rows * SLOTS * 8).reshape(rows, DENSE)
    [score] = net.run(["score"], {"ids": ids, "dense": dense})
    return Response(score.tobytes(), media_type="application/octet-stream")


@app.post("/trees")
async def of_trees(request: Request) -> Response:
    """The trees of our GBDT+LR bundle, whose leaves hold their weights in the linear part."""
    asked = orjson.loads(await request.body())
    rows = np.array(list(asked.values()), np.float64).T
    margin = trees.predict(rows, raw_score=True, num_threads=1, validate_features=False)
    score = 1 / (1 + np.exp(-(margin + bias)))
    return Response(orjson.dumps({"score": score}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


if __name__ == "__main__":
    bundle = Path(sys.argv[2]) / "trees"
    bias = orjson.loads((bundle / "manifest.json").read_bytes())["model"]["bias"]
    trees = lightgbm.Booster(model_file=bundle / "trees.txt")
    net = session(Path(sys.argv[2]) / "gather.onnx")
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
    )
