"""Drive a running wick with KServe's Python clients, unchanged.

Usage: kserve_clients.py HOST:PORT

The server must serve examples/filetype.
"""

from __future__ import annotations

import sys

import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)

import checks

ADDRESS = sys.argv[1]
SCRIPT = b"#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print(sys.argv)\n\n\nmain()\n"


async def the_grpc_client_asks_for_health() -> None:
    async with InferenceGRPCClient(ADDRESS) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("filetype")


async def the_grpc_client_infers_raw_and_typed() -> None:
    async with InferenceGRPCClient(ADDRESS) as client:
        for binary in [True, False]:
            labelled(await client.infer(request(binary=binary)))


async def the_rest_client_infers_binary_and_json() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        url = f"http://{ADDRESS}"
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "filetype")
        for binary in [True, False]:
            labelled(await client.infer(url, request(binary=binary), model_name="filetype"))


def labelled(response: InferResponse) -> None:
    label = next(out for out in response.outputs if out.name == "label").as_numpy()
    assert list(label) in ([b"python"], ["python"]), label


def request(*, binary: bool) -> InferRequest:
    tensor = InferInput("bytes", [len(SCRIPT)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(SCRIPT, np.uint8), binary_data=binary)
    return InferRequest("filetype", [tensor], request_id="k-1")


CHECKS = [
    the_grpc_client_asks_for_health,
    the_grpc_client_infers_raw_and_typed,
    the_rest_client_infers_binary_and_json,
]


if __name__ == "__main__":
    raise SystemExit(checks.run(CHECKS))
