"""Every call of Triton's HTTP client."""

from __future__ import annotations

import sys
from typing import Any

import tritonclient.http as triton
from judging import Question, Record


def main() -> None:
    address, _, path = sys.argv[1:]
    question, record = Question(path), Record()
    client = triton.InferenceServerClient(address, concurrency=4)
    model, version = question.model, question.version
    call = record.call

    call("live", lambda: client.is_server_live(question.headers))
    call("ready", lambda: client.is_server_ready(question.headers))
    call("model_ready", lambda: client.is_model_ready(model, headers=question.headers))
    call("version_ready", lambda: client.is_model_ready(model, version, headers=question.headers))
    call("unknown_ready", lambda: client.is_model_ready("nobody", headers=question.headers))
    call("unknown_version_ready", lambda: client.is_model_ready(model, "77", headers=question.headers))
    call("server_metadata", lambda: client.get_server_metadata(question.headers))
    call("metadata", lambda: client.get_model_metadata(model, headers=question.headers))
    call("version_metadata", lambda: client.get_model_metadata(model, version, headers=question.headers))
    call("unknown_metadata", lambda: client.get_model_metadata("nobody", headers=question.headers))
    call("config", lambda: client.get_model_config(model, headers=question.headers))
    call("index", lambda: client.get_model_repository_index(question.headers))

    def scores(
        tensors: dict[str, tuple[str, Any]], binary_in: bool, binary_out: bool | None, **options: Any
    ) -> dict[str, Any]:
        given = []
        for name, (datatype, array) in tensors.items():
            tensor = triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array, binary_data=binary_in)
            given.append(tensor)
        wanted = options.pop("wanted", None)
        outputs = None
        if binary_out is not None:
            outputs = [triton.InferRequestedOutput(wanted or "score", binary_data=binary_out)]
        return told(client.infer(model, given, outputs=outputs, headers=question.headers, **options))

    def told(result: Any) -> dict[str, Any]:
        response = result.get_response()
        return {
            "scores": result.as_numpy("score").tolist(),
            "id": response.get("id", ""),
            "version": response.get("model_version", ""),
            "bundle": response.get("parameters", {}).get("bundle", ""),
            "outputs": [(o["name"], o["datatype"], o["shape"]) for o in response["outputs"]],
        }

    tensors = question.arrays()
    for binary_in in (False, True):
        for binary_out in (None, False, True):
            name = f"infer_{'binary' if binary_in else 'json'}_{binary_out}"
            call(name, lambda a=binary_in, b=binary_out: scores(tensors, a, b))  # type: ignore[misc]
    column = {name: (kind, array.reshape(-1, 1)) for name, (kind, array) in tensors.items()}
    call("infer_two_dimensions", lambda: scores(column, True, None))
    call("infer_version", lambda: scores(tensors, True, None, model_version=version))
    call("infer_id", lambda: scores(tensors, True, None, request_id="an id"))
    call("infer_unknown_version", lambda: scores(tensors, True, None, model_version="77"))
    call("infer_unknown_output", lambda: scores(tensors, True, True, wanted="nothing"))
    broadcast = {"broadcast": " ".join(question.broadcast)}
    call("infer_broadcast", lambda: scores(question.of_one_row(), True, None, parameters=broadcast))
    for coding in ("gzip", "deflate"):
        options = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        call(f"infer_{coding}", lambda o=options: scores(tensors, True, True, **o))  # type: ignore[misc]
        call(f"infer_json_{coding}", lambda o=options: scores(tensors, False, False, **o))  # type: ignore[misc]
    call("infer_in_time", lambda: scores(tensors, True, None, timeout=5_000_000))
    call("infer_too_late", lambda: scores(tensors, True, None, timeout=1))
    call("infer_sequence", lambda: scores(tensors, True, None, sequence_id=7, sequence_start=True))

    def together() -> list[Any]:
        given = []
        for name, (datatype, array) in tensors.items():
            tensor = triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            given.append(tensor)
        pending = [client.async_infer(model, given, request_id=str(n), headers=question.headers) for n in range(8)]
        return [told(each.get_result()) for each in pending]

    call("async_infer", together)
    call("statistics", lambda: client.get_inference_statistics(model, headers=question.headers))
    call("version_statistics", lambda: client.get_inference_statistics(model, version, headers=question.headers))
    call("all_statistics", lambda: client.get_inference_statistics(headers=question.headers))

    call("load_with_file", lambda: client.load_model(model, question.headers, config="{}", files={"file:1/x": b"x"}))
    call("load_with_config", lambda: client.load_model(model, question.headers, config="{}"))
    call("unload", lambda: client.unload_model(model, question.headers))
    call("unloaded_ready", lambda: client.is_model_ready(model, headers=question.headers))
    call("unloaded_infer", lambda: scores(tensors, True, None))
    call("load", lambda: client.load_model(model, question.headers))
    call("loaded_infer", lambda: scores(tensors, True, None))
    call("load_unknown", lambda: client.load_model("nobody", question.headers))

    call("trace", lambda: client.get_trace_settings(headers=question.headers))
    call("trace_update", lambda: client.update_trace_settings(settings={"trace_rate": "1"}, headers=question.headers))
    call("log", lambda: client.get_log_settings(question.headers))
    call("log_update", lambda: client.update_log_settings({"log_info": True}, question.headers))
    call("system_memory", lambda: client.get_system_shared_memory_status(headers=question.headers))
    call(
        "system_memory_register", lambda: client.register_system_shared_memory("m", "/m", 64, headers=question.headers)
    )
    call("system_memory_unregister", lambda: client.unregister_system_shared_memory(headers=question.headers))
    call("cuda_memory", lambda: client.get_cuda_shared_memory_status(headers=question.headers))
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
