"""Every call of KServe's clients: `rest.NAME` and `grpc.NAME`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from judging import Question, Record
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def call(record: Record, name: str, function: Callable[[], Awaitable[Any]]) -> None:
    try:
        record.calls[name] = {"value": await function()}
    except Exception as error:
        record.fault(name, error)


def told(response: Any) -> dict[str, Any]:
    output = next(output for output in response.outputs if output.name == "score")
    return {
        "scores": output.as_numpy().tolist(),
        "id": response.id or "",
        "version": response.model_version,
        "outputs": [(o.name, o.datatype, list(o.shape)) for o in response.outputs],
    }


def request(question: Question, binary: bool, *, broadcast: bool = False, **options: Any) -> InferRequest:
    inputs = []
    for name, (datatype, array) in (question.of_one_row() if broadcast else question.arrays()).items():
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    if broadcast:
        options["parameters"] = {"broadcast": " ".join(question.broadcast)}
    return InferRequest(options.pop("model", question.model), inputs, **options)


async def rest(address: str, question: Question, record: Record) -> None:
    url, model = f"http://{address}", question.model
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:

        async def ask(asked: InferRequest, **options: Any) -> dict[str, Any]:
            return told(
                await client.infer(url, asked, model_name=asked.model_name, headers=question.headers, **options)
            )

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "live": lambda: client.is_server_live(url, headers=question.headers),
            "ready": lambda: client.is_server_ready(url, headers=question.headers),
            "model_ready": lambda: client.is_model_ready(url, model, headers=question.headers),
            "unknown_ready": lambda: client.is_model_ready(url, "nobody", headers=question.headers),
            "infer_json": lambda: ask(request(question, binary=False)),
            "infer_binary": lambda: ask(request(question, binary=True)),
            "infer_broadcast": lambda: ask(request(question, binary=True, broadcast=True)),
            "infer_id": lambda: ask(request(question, binary=True, request_id="an id")),
            "infer_binary_output": lambda: ask(
                request(question, True, request_outputs=[RequestedOutput("score", {"binary_data": True})])
            ),
            "infer_json_output": lambda: ask(
                request(question, True, request_outputs=[RequestedOutput("score", {"binary_data": False})])
            ),
            "infer_unknown_output": lambda: ask(
                request(question, True, request_outputs=[RequestedOutput("nothing", {"binary_data": False})])
            ),
            "infer_in_time": lambda: ask(request(question, binary=True), timeout=5.0),
            "infer_unknown_model": lambda: ask(request(question, binary=True, model="nobody")),
        }
        for name, function in calls.items():
            await call(record, f"rest.{name}", function)


async def grpc(address: str, question: Question, record: Record) -> None:
    headers, model = tuple(question.headers.items()), question.model
    async with InferenceGRPCClient(address, retries=0) as client:

        async def ask(asked: InferRequest, **options: Any) -> dict[str, Any]:
            return told(await client.infer(asked, headers=headers, **options))

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "live": lambda: client.is_server_live(headers=headers),
            "ready": lambda: client.is_server_ready(headers=headers),
            "model_ready": lambda: client.is_model_ready(model, headers=headers),
            "unknown_ready": lambda: client.is_model_ready("nobody", headers=headers),
            "infer_contents": lambda: ask(request(question, binary=False)),
            "infer_raw": lambda: ask(request(question, binary=True)),
            "infer_broadcast": lambda: ask(request(question, binary=True, broadcast=True)),
            "infer_id": lambda: ask(request(question, binary=True, request_id="an id")),
            "infer_version": lambda: ask(request(question, binary=True, model_version=question.version)),
            "infer_unknown_version": lambda: ask(request(question, binary=True, model_version="77")),
            "infer_in_time": lambda: ask(request(question, binary=True), timeout=5.0),
            "infer_unknown_model": lambda: ask(request(question, binary=True, model="nobody")),
        }
        for name, function in calls.items():
            await call(record, f"grpc.{name}", function)


async def main() -> None:
    logging.disable(logging.CRITICAL)
    http, rpc, path = sys.argv[1:]
    question, record = Question(path), Record()
    await rest(http, question, record)
    await grpc(rpc, question, record)
    record.print()


if __name__ == "__main__":
    asyncio.run(main())
