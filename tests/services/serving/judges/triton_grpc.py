"""Every call of Triton's gRPC client."""

from __future__ import annotations

import contextlib
import queue
import sys
from typing import Any

import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToDict
from judging import Question, Record
from tritonclient.utils import InferenceServerException


def main() -> None:
    _, address, path = sys.argv[1:]
    question, record = Question(path), Record()
    client = triton.InferenceServerClient(address)
    model, version = question.model, question.version
    call = record.call

    call("live", lambda: client.is_server_live(question.headers))
    call("ready", lambda: client.is_server_ready(question.headers))
    call("model_ready", lambda: client.is_model_ready(model, headers=question.headers))
    call("version_ready", lambda: client.is_model_ready(model, version, headers=question.headers))
    call("unknown_ready", lambda: client.is_model_ready("nobody", headers=question.headers))
    call("unknown_version_ready", lambda: client.is_model_ready(model, "77", headers=question.headers))
    call("server_metadata", lambda: client.get_server_metadata(question.headers, as_json=True))
    call("metadata", lambda: client.get_model_metadata(model, headers=question.headers, as_json=True))
    call("version_metadata", lambda: client.get_model_metadata(model, version, headers=question.headers, as_json=True))
    call("unknown_metadata", lambda: client.get_model_metadata("nobody", headers=question.headers, as_json=True))
    call("config", lambda: client.get_model_config(model, headers=question.headers, as_json=True))
    call("index", lambda: client.get_model_repository_index(question.headers, as_json=True))

    def inputs(tensors: dict[str, tuple[str, Any]]) -> list[Any]:
        given = []
        for name, (datatype, array) in tensors.items():
            tensor = triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            given.append(tensor)
        return given

    def told(result: Any) -> dict[str, Any]:
        response = MessageToDict(result.get_response(), preserving_proto_field_name=True)
        outputs = [(o["name"], o["datatype"], [int(n) for n in o["shape"]]) for o in response["outputs"]]
        return {
            "scores": result.as_numpy("score").tolist(),
            "id": response.get("id", ""),
            "version": response.get("model_version", ""),
            "bundle": response.get("parameters", {}).get("bundle", {}).get("string_param", ""),
            "outputs": outputs,
        }

    def scores(tensors: dict[str, tuple[str, Any]], wanted: str = "", **options: Any) -> dict[str, Any]:
        outputs = [triton.InferRequestedOutput(wanted)] if wanted else None
        return told(client.infer(model, inputs(tensors), outputs=outputs, headers=question.headers, **options))

    tensors = question.arrays()
    call("infer", lambda: scores(tensors))
    call("infer_output", lambda: scores(tensors, "score"))
    column = {name: (kind, array.reshape(-1, 1)) for name, (kind, array) in tensors.items()}
    call("infer_two_dimensions", lambda: scores(column))
    call("infer_version", lambda: scores(tensors, model_version=version))
    call("infer_id", lambda: scores(tensors, request_id="an id"))
    call("infer_unknown_version", lambda: scores(tensors, model_version="77"))
    call("infer_unknown_output", lambda: scores(tensors, "nothing"))
    broadcast = {"broadcast": " ".join(question.broadcast)}
    call("infer_broadcast", lambda: scores(question.of_one_row(), parameters=broadcast))
    for coding in ("gzip", "deflate"):
        call(f"infer_{coding}", lambda c=coding: scores(tensors, compression_algorithm=c))  # type: ignore[misc]
    call("infer_in_time", lambda: scores(tensors, timeout=5_000_000, client_timeout=5.0))
    call("infer_too_late", lambda: scores(tensors, timeout=1))
    call("infer_sequence", lambda: scores(tensors, sequence_id=7, sequence_start=True))

    def together() -> list[Any]:
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

        def answered(result: Any, error: Any) -> None:
            answers.put((result, error))

        for n in range(8):
            client.async_infer(model, inputs(tensors), answered, request_id=str(n), headers=question.headers)
        found = []
        for _ in range(8):
            result, error = answers.get(timeout=30)
            if error is not None:
                raise error
            found.append(told(result))
        return found

    call("async_infer", together)

    def stream() -> Any:
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.start_stream(lambda result, error: answers.put((result, error)), headers=question.headers)
        try:
            # The stream may have been refused before anything went into it: the callback says why.
            with contextlib.suppress(InferenceServerException):
                client.async_stream_infer(model, inputs(tensors))
            result, error = answers.get(timeout=30)
            if error is not None:
                raise error
            return told(result)
        finally:
            client.stop_stream(cancel_requests=True)

    call("stream", stream)
    call("statistics", lambda: client.get_inference_statistics(model, headers=question.headers, as_json=True))
    call(
        "version_statistics",
        lambda: client.get_inference_statistics(model, version, headers=question.headers, as_json=True),
    )
    call("all_statistics", lambda: client.get_inference_statistics(headers=question.headers, as_json=True))

    call("load_with_file", lambda: client.load_model(model, question.headers, config="{}", files={"file:1/x": b"x"}))
    call("load_with_config", lambda: client.load_model(model, question.headers, config="{}"))
    call("unload", lambda: client.unload_model(model, question.headers))
    call("unloaded_ready", lambda: client.is_model_ready(model, headers=question.headers))
    call("unloaded_infer", lambda: scores(tensors))
    call("load", lambda: client.load_model(model, question.headers))
    call("loaded_infer", lambda: scores(tensors))
    call("load_unknown", lambda: client.load_model("nobody", question.headers))

    call("trace", lambda: client.get_trace_settings(headers=question.headers, as_json=True))
    call("trace_update", lambda: client.update_trace_settings(settings={"trace_rate": "1"}, headers=question.headers))
    call("log", lambda: client.get_log_settings(question.headers, as_json=True))
    call("log_update", lambda: client.update_log_settings({"log_info": True}, question.headers))
    call("system_memory", lambda: client.get_system_shared_memory_status(headers=question.headers, as_json=True))
    call(
        "system_memory_register", lambda: client.register_system_shared_memory("m", "/m", 64, headers=question.headers)
    )
    call("system_memory_unregister", lambda: client.unregister_system_shared_memory(headers=question.headers))
    call("cuda_memory", lambda: client.get_cuda_shared_memory_status(headers=question.headers, as_json=True))
    call(
        "cuda_memory_register",
        lambda: client.register_cuda_shared_memory("m", b"eA==", 0, 64, headers=question.headers),
    )
    call("cuda_memory_unregister", lambda: client.unregister_cuda_shared_memory(headers=question.headers))

    def from_shared_memory() -> Any:
        name, (datatype, array) = next(iter(tensors.items()))
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_shared_memory("m", 64)
        return told(client.infer(model, [tensor], headers=question.headers))

    call("infer_shared_memory", from_shared_memory)
    client.close()
    record.print()


if __name__ == "__main__":
    main()
