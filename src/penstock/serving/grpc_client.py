"""The same client over gRPC, for those whose network speaks it: `pip install 'penstock[grpc]'`.

Messages are made from the descriptors that the host itself was built from, so there is no generated code to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from penstock import native
from penstock.errors import RequestError
from penstock.serving import wire
from penstock.serving.client import Reply, ServingError, tables_of
from penstock.serving.tensors import Declared, tensors_of

SERVICE = "/inference.GRPCInferenceService"
#: gRPC's status by name -> HTTP's, so that callers of either client test one number.
STATUSES = {
    "INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
MESSAGE_BYTES = 64 << 20


class GrpcClient:
    """`address`: HOST:PORT. Threads may share it. Raises `ServingError` as `Client` does."""

    def __init__(self, address: str, *, token: str = "", timeout_s: float = 5.0, credentials: Any = None) -> None:
        try:
            import grpc
        except ImportError:
            raise RequestError("gRPC needs the package grpcio", "pip install 'penstock[grpc]'") from None
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self.address, self.timeout_s = address, timeout_s
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._declared: dict[str, list[Declared]] = {}

    def __repr__(self) -> str:
        return f"GrpcClient({self.address})"

    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the host, or a model, takes requests; False too where nobody answers."""
        try:
            if model:
                return bool(self._call("ModelReady", {"name": model, "version": version}, self.timeout_s).ready)
            return bool(self._call("ServerReady", {}, self.timeout_s).ready)
        except ServingError:
            return False

    def infer(
        self, model: str, data: Any, *, version: str = "", broadcast: Sequence[str] = (),
        timeout_s: float | None = None, request_id: str = "",
    ) -> Reply:  # fmt: skip
        """Score rows, as `Client.infer` does."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        inputs = self._inputs(model, version)
        tensors = [t for part in tables_of(data) for t in tensors_of(part, inputs)]
        request = _message("ModelInferRequest")(model_name=model, model_version=version, id=request_id)
        for name, shape, elements in tensors:
            for each, datatype, blob in wire.parts(name, elements):
                request.inputs.add(name=each, datatype=datatype, shape=shape)
                request.raw_input_contents.append(blob)
        if broadcast:
            request.parameters["broadcast"].string_param = " ".join(broadcast)
        reply = self._call("ModelInfer", request, timeout_s)
        outputs = {
            output.name: wire.from_bytes(blob, output.datatype, list(output.shape))
            for output, blob in zip(reply.outputs, reply.raw_output_contents, strict=True)
        }
        about = reply.parameters
        bundle = about["bundle"].string_param if "bundle" in about else ""
        position = (about["generation"].int64_param, about["sequence"].int64_param) if "generation" in about else None
        return Reply(outputs, reply.model_name, reply.model_version, bundle, reply.id, position)

    def close(self) -> None:
        self._channel.close()

    def _inputs(self, model: str, version: str) -> list[Declared]:
        key = f"{model}/{version}"
        if key not in self._declared:
            found = self._call("ModelMetadata", {"name": model, "version": version}, self.timeout_s)
            self._declared[key] = [(i.name, i.datatype, list(i.shape)) for i in found.inputs]
        return self._declared[key]

    def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        import grpc

        if isinstance(request, dict):
            request = _message(f"{method}Request")(**request)
        reply = _message(f"{method}Response")
        call = self._channel.unary_unary(
            f"{SERVICE}/{method}", lambda message: message.SerializeToString(), reply.FromString
        )
        try:
            return call(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code().name
            raise ServingError(error.details() or code, status=STATUSES.get(code, 500)) from None


@cache
def _message(name: str) -> Any:
    from google.protobuf import descriptor_pb2, message_factory

    return message_factory.GetMessageClass(_pool(descriptor_pb2).FindMessageTypeByName(f"inference.{name}"))


@cache
def _pool(descriptors: Any) -> Any:
    from google.protobuf import descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptors.FileDescriptorSet.FromString(native.inference_descriptors()).file:
        pool.Add(file)
    return pool
