"""Drive a running wick with tritonclient, unchanged.

Usage: tritonclient_rest.py HOST:PORT

The server must serve examples/filetype and examples/passthrough. Every check prints
one line; the exit code is 1 if one of them failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import checks
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

SCRIPT = b"#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print(sys.argv)\n\n\nmain()\n"


def server_answers_its_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("filetype")
    assert client.get_server_metadata()["name"] == "wick"
    metadata = client.get_model_metadata("filetype")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["bytes"]
    assert {tensor["name"] for tensor in metadata["outputs"]} >= {"label", "score"}


def binary_tensors_go_both_ways(client: triton.InferenceServerClient) -> None:
    result = client.infer("filetype", [file_input(SCRIPT, binary=True)])
    assert list(result.as_numpy("label")) == [b"python"]
    assert result.as_numpy("score").dtype == np.float32


def json_tensors_go_both_ways(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("label", binary_data=False)]
    result = client.infer("filetype", [file_input(SCRIPT, binary=False)], outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["label"]
    # BYTES in JSON are strings.
    assert list(result.as_numpy("label")) == ["python"]


def binary_and_json_outputs_mix(client: triton.InferenceServerClient) -> None:
    outputs = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("score", binary_data=True),
    ]
    result = client.infer("filetype", [file_input(SCRIPT, binary=True)], outputs=outputs)
    assert list(result.as_numpy("label")) == ["python"]
    assert 0.5 < result.as_numpy("score")[0] <= 1.0


def request_ids_come_back(client: triton.InferenceServerClient) -> None:
    result = client.infer("filetype", [file_input(SCRIPT, binary=True)], request_id="r-17")
    assert result.get_response()["id"] == "r-17"


def several_requests_in_flight(client: triton.InferenceServerClient) -> None:
    pending = [client.async_infer("filetype", [file_input(SCRIPT, binary=True)]) for _ in range(32)]
    for request in pending:
        assert list(request.get_result().as_numpy("label")) == [b"python"]


def a_passthrough_model_answers(client: triton.InferenceServerClient) -> None:
    spec = client.get_model_metadata("passthrough")["inputs"][0]
    shape = [1 if dim < 0 else dim for dim in spec["shape"]]
    types = {"INT32": np.int32, "FP32": np.float32}
    values = np.zeros(shape, types[spec["datatype"]])
    tensor = triton.InferInput(spec["name"], shape, spec["datatype"])
    tensor.set_data_from_numpy(values)
    first = client.infer("passthrough", [tensor]).get_response()["outputs"][0]
    assert first["shape"][0] == 1


def bodies_are_compressed_both_ways(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", [64, 3, 8, 8], "FP32")
    for binary in [True, False]:
        tensor.set_data_from_numpy(np.zeros([64, 3, 8, 8], np.float32), binary_data=binary)
        name = client.get_model_metadata("passthrough")["outputs"][0]["name"]
        outputs = [triton.InferRequestedOutput(name, binary_data=False)]
        want = client.infer("passthrough", [tensor], outputs=outputs).as_numpy(name)
        for algorithm in ["gzip", "deflate"]:
            compressed = {
                "request_compression_algorithm": algorithm,
                "response_compression_algorithm": algorithm,
            }
            result = client.infer("passthrough", [tensor], outputs=outputs, **compressed)
            assert np.array_equal(result.as_numpy(name), want), algorithm


def statistics_and_configuration_are_there(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("filetype")["model_stats"][0]["inference_count"]
    client.infer("filetype", [file_input(SCRIPT, binary=True)])
    stats = client.get_inference_statistics("filetype")["model_stats"][0]
    assert stats["inference_count"] == before + 1, stats
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0, stats
    assert len(client.get_inference_statistics()["model_stats"]) == 2
    config = client.get_model_config("filetype")
    assert config["input"][0] == {"name": "bytes", "data_type": "TYPE_UINT8", "dims": [-1]}, config


def models_are_unloaded_and_loaded(client: triton.InferenceServerClient) -> None:
    client.unload_model("passthrough")
    states = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert states == {"filetype": "READY", "passthrough": "UNAVAILABLE"}, states
    assert not client.is_model_ready("passthrough")
    client.load_model("passthrough")
    assert client.is_model_ready("passthrough")
    try:
        client.load_model("no-such-model")
    except InferenceServerException as error:
        assert error.status() == "404" and "no-such-model" in error.message(), error
    else:
        raise AssertionError("a model that does not exist was loaded")


def mistakes_are_reported_in_words(client: triton.InferenceServerClient) -> None:
    wrong_type = triton.InferInput("bytes", [1], "FP32")
    wrong_type.set_data_from_numpy(np.zeros(1, np.float32))
    for model, tensor, status, word in [
        ("filetype", wrong_type, "400", "FP32"),
        ("no-such-model", file_input(SCRIPT, binary=True), "404", "no-such-model"),
    ]:
        try:
            client.infer(model, [tensor])
        except InferenceServerException as error:
            assert error.status() == status, error
            assert word in error.message(), error
        else:
            raise AssertionError(f"{model} took a wrong request")


def file_input(content: bytes, *, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("bytes", [len(content)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(content, np.uint8), binary_data=binary)
    return tensor


CHECKS: list[Callable[[triton.InferenceServerClient], None]] = [
    server_answers_its_health_and_metadata,
    binary_tensors_go_both_ways,
    json_tensors_go_both_ways,
    binary_and_json_outputs_mix,
    request_ids_come_back,
    several_requests_in_flight,
    a_passthrough_model_answers,
    bodies_are_compressed_both_ways,
    statistics_and_configuration_are_there,
    models_are_unloaded_and_loaded,
    mistakes_are_reported_in_words,
]


if __name__ == "__main__":
    client = triton.InferenceServerClient(sys.argv[1], concurrency=8)
    raise SystemExit(checks.run(CHECKS, client))
