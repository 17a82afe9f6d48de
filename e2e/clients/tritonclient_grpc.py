"""Drive a running wick with tritonclient's gRPC clients, and its asynchronous REST client,
unchanged.

Usage: tritonclient_grpc.py HOST:PORT

The server must serve examples/filetype and examples/passthrough, and let models be loaded
by request.
"""

from __future__ import annotations

import queue
import sys
import time
from functools import partial

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http.aio as triton_rest_aio
from tritonclient.utils import InferenceServerException

import checks

ADDRESS = sys.argv[1]
SCRIPT = b"#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print(sys.argv)\n\n\nmain()\n"


def server_and_models_say_what_they_are(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("filetype")
    assert client.get_server_metadata().name == "wick"
    metadata = client.get_model_metadata("filetype")
    assert [tensor.name for tensor in metadata.inputs] == ["bytes"]
    assert {tensor.name for tensor in metadata.outputs} >= {"label", "score"}
    config = client.get_model_config("filetype", as_json=True)["config"]
    assert config["input"][0]["data_type"] == "TYPE_UINT8", config
    assert config["input"][0]["dims"] == ["-1"], config


def raw_contents_are_answered(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("score")]
    result = client.infer("filetype", [file_input()], outputs=outputs, request_id="r-17")
    assert list(result.as_numpy("label")) == [b"python"]
    assert 0.5 < result.as_numpy("score")[0] <= 1.0
    assert result.get_response().id == "r-17"


def typed_contents_are_answered(client: triton.InferenceServerClient) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc
    import grpc

    request = service_pb2.ModelInferRequest(model_name="filetype")
    tensor = request.inputs.add(name="bytes", datatype="UINT8", shape=[len(SCRIPT)])
    tensor.contents.uint_contents.extend(SCRIPT)
    with grpc.insecure_channel(ADDRESS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        result = triton.InferResult(stub.ModelInfer(request))
        assert list(result.as_numpy("label")) == [b"python"]
        request.parameters["binary_data_output"].bool_param = False
        answer = stub.ModelInfer(request)
    labels = [out.contents.bytes_contents for out in answer.outputs if out.name == "label"]
    assert [list(label) for label in labels] == [[b"python"]], answer


def compressed_messages_are_read(client: triton.InferenceServerClient) -> None:
    for algorithm in ["gzip", "deflate"]:
        result = client.infer("filetype", [file_input()], compression_algorithm=algorithm)
        assert list(result.as_numpy("label")) == [b"python"], algorithm


def requests_in_flight_are_answered_and_can_be_cancelled(
    client: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue = queue.Queue()
    callback = partial(lambda answers, result, error: answers.put((result, error)), answers)
    for _ in range(32):
        client.async_infer("filetype", [file_input()], callback)
    for _ in range(32):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert list(result.as_numpy("label")) == [b"python"]
    call = client.async_infer("filetype", [file_input(repeat=20_000)], callback)
    call.cancel()
    result, error = answers.get(timeout=30)
    # It may have been answered before it was cancelled.
    assert result is not None or "CANCELLED" in str(error.status()), error
    assert client.is_server_ready()


def a_stream_answers_with_ids_and_errors(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(16):
        client.async_stream_infer("filetype", [file_input()], request_id=str(number))
    ids = set()
    for _ in range(16):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert list(result.as_numpy("label")) == [b"python"]
        ids.add(result.get_response().id)
    assert ids == {str(number) for number in range(16)}, ids
    client.async_stream_infer("no-such-model", [file_input()], request_id="x")
    result, error = answers.get(timeout=30)
    assert result is None and "no-such-model" in error.message(), error
    # The stream goes on after an error.
    client.async_stream_infer(
        "filetype", [file_input()], enable_empty_final_response=True, request_id="last"
    )
    result, error = answers.get(timeout=30)
    assert error is None, error
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()


def a_deadline_is_kept(client: triton.InferenceServerClient) -> None:
    start = time.monotonic()
    try:
        client.infer("filetype", [file_input(repeat=20_000)], client_timeout=0.000_001)
    except InferenceServerException as error:
        assert "DEADLINE_EXCEEDED" in error.status(), error
    else:
        raise AssertionError("a request was answered in a microsecond")
    assert time.monotonic() - start < 5


def statistics_are_there(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("filetype").model_stats[0].inference_count
    client.infer("filetype", [file_input()])
    stats = client.get_inference_statistics("filetype").model_stats[0]
    assert stats.inference_count == before + 1, stats
    assert stats.inference_stats.compute_infer.ns > 0, stats
    assert len(client.get_inference_statistics().model_stats) == 2


def models_are_unloaded_and_loaded(client: triton.InferenceServerClient) -> None:
    client.unload_model("passthrough")
    states = {model.name: model.state for model in client.get_model_repository_index().models}
    assert states == {"filetype": "READY", "passthrough": "UNAVAILABLE"}, states
    assert not client.is_model_ready("passthrough")
    client.load_model("passthrough")
    assert client.is_model_ready("passthrough")


def mistakes_have_a_status_and_words(client: triton.InferenceServerClient) -> None:
    wrong_type = triton.InferInput("bytes", [1], "FP32")
    wrong_type.set_data_from_numpy(np.zeros(1, np.float32))
    for call, status, word in [
        (lambda: client.infer("filetype", [wrong_type]), "INVALID_ARGUMENT", "FP32"),
        (lambda: client.infer("no-such-model", [file_input()]), "NOT_FOUND", "no-such-model"),
        (lambda: client.load_model("no-such-model"), "NOT_FOUND", "no-such-model"),
        (client.get_system_shared_memory_status, "UNIMPLEMENTED", "shared memory"),
        (client.get_trace_settings, "UNIMPLEMENTED", "traces and logs"),
        (client.get_log_settings, "UNIMPLEMENTED", "traces and logs"),
    ]:
        try:
            call()
        except InferenceServerException as error:
            assert status in error.status(), error
            assert word in error.message(), error
        else:
            raise AssertionError(f"no error that has {word}")


async def the_asynchronous_client_infers_and_streams(_: object) -> None:
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_ready()
        result = await client.infer("filetype", [file_input()])
        assert list(result.as_numpy("label")) == [b"python"]

        async def requests():
            for number in range(8):
                yield {
                    "model_name": "filetype",
                    "inputs": [file_input()],
                    "request_id": str(number),
                }

        ids = set()
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            ids.add(result.get_response().id)
        assert ids == {str(number) for number in range(8)}, ids


async def the_asynchronous_rest_client_infers(_: object) -> None:
    async with triton_rest_aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_model_ready("filetype")
        tensor = triton_rest_aio.InferInput("bytes", [len(SCRIPT)], "UINT8")
        tensor.set_data_from_numpy(np.frombuffer(SCRIPT, np.uint8))
        result = await client.infer("filetype", [tensor])
        assert list(result.as_numpy("label")) == [b"python"]


def file_input(repeat: int = 1) -> triton.InferInput:
    content = SCRIPT * repeat
    tensor = triton.InferInput("bytes", [len(content)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(content, np.uint8))
    return tensor


CHECKS = [
    server_and_models_say_what_they_are,
    raw_contents_are_answered,
    typed_contents_are_answered,
    compressed_messages_are_read,
    requests_in_flight_are_answered_and_can_be_cancelled,
    a_stream_answers_with_ids_and_errors,
    a_deadline_is_kept,
    statistics_are_there,
    models_are_unloaded_and_loaded,
    mistakes_have_a_status_and_words,
    the_asynchronous_client_infers_and_streams,
    the_asynchronous_rest_client_infers,
]


if __name__ == "__main__":
    with triton.InferenceServerClient(ADDRESS) as sync:
        raise SystemExit(checks.run(CHECKS, sync))
