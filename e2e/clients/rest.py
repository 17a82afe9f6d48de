"""Drive a running wick with curl, and hold its answers against its OpenAPI document.

Usage: rest.py HOST:PORT

The server must serve examples/filetype and examples/passthrough. Every check prints
one line; the exit code is 1 if one of them failed.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checks
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

SCRIPT = b"#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print(sys.argv)\n\n\nmain()\n"
FILETYPE = "/v2/models/filetype/infer"
PASSTHROUGH = "/v2/models/passthrough/infer"

# A picture of zeros for the passthrough model.
PICTURE = [1, 3, 48, 192]
ELEMENTS = 3 * 48 * 192


def curl(path: str, *arguments: str, body: bytes | None = None) -> bytes:
    """What curl writes; it fails at a status that is not good."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", *arguments]
    if body is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run([*command, f"http://{sys.argv[1]}{path}"], input=body, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outputs(answer: bytes) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}


def a_raw_body_is_the_only_input() -> None:
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder) / "head"
        answer = curl(FILETYPE, "-H", "Inference-Header-Content-Length: 0", "-D", str(head), body=SCRIPT)
        lines = head.read_text().lower().splitlines()
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("inference-header-content-length"))
    names = [output["name"] for output in json.loads(answer[:length])["outputs"]]
    assert names == ["label", "score", "mime"], names
    # BYTES: the length of the only string, then the string.
    assert answer[length:].startswith(b"\x06\x00\x00\x00python"), answer


def a_raw_body_that_does_not_tell_the_shape_is_refused() -> None:
    command = ["curl", "--silent", "-H", "Inference-Header-Content-Length: 0", "--data-binary", "xxxx"]
    done = subprocess.run([*command, f"http://{sys.argv[1]}{PASSTHROUGH}"], capture_output=True, check=True)
    error = json.loads(done.stdout)
    assert error["code"] == "bad-input" and "JSON header" in error["error"], error


def curl_takes_compressed_answers() -> None:
    plain = json.loads(curl("/v2/models/stats"))
    assert json.loads(curl("/v2/models/stats", "--compressed")).keys() == plain.keys()
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder) / "head"
        text = curl("/v2/openapi.json", "--compressed", "-D", str(head))
        assert "content-encoding:" in head.read_text().lower(), head.read_text()
    assert json.loads(text) == json.loads(curl("/v2/openapi.json"))


def compressed_requests_are_answered_as_plain_ones() -> None:
    data = {"name": "x", "shape": PICTURE, "datatype": "FP32", "data": [0.5] * ELEMENTS}
    body = json.dumps({"inputs": [data]}).encode()
    want = outputs(curl(PASSTHROUGH, body=body))
    zstd = subprocess.run(["zstd", "--stdout", "-q"], input=body, capture_output=True, check=True).stdout
    for name, small in [("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("zstd", zstd)]:
        assert len(small) < len(body)
        assert outputs(curl(PASSTHROUGH, "-H", f"Content-Encoding: {name}", body=small)) == want, name


def the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def answers_are_what_the_document_says() -> None:
    described = document()
    shown = 0
    for path, item in described["paths"].items():
        if "get" not in item or "/load" in path:
            continue
        good = item["get"]["responses"]["200"].get("content", {})
        if "application/json" not in good:
            continue
        # Both models: one with a handler, one without.
        for model in ["filetype", "passthrough"]:
            address = path.replace("{model}", model).replace("{version}", "1.0.0")
            check(described, good["application/json"]["schema"], curl(address))
            shown += 1
    assert shown >= 20, shown
    index = described["paths"]["/v2/repository/index"]["post"]["responses"]["200"]
    check(described, index["content"]["application/json"]["schema"], curl("/v2/repository/index", body=b"{}"))
    data = {"name": "bytes", "shape": [len(SCRIPT)], "datatype": "UINT8", "data": list(SCRIPT)}
    request = {"id": "a", "inputs": [data], "outputs": [{"name": "label"}]}
    schemas = "#/components/schemas/"
    check(described, {"$ref": f"{schemas}InferRequest"}, json.dumps(request).encode())
    answer = curl(FILETYPE, body=json.dumps(request).encode())
    check(described, {"$ref": f"{schemas}InferResponse"}, answer)
    models = described["components"]["parameters"]["model"]["schema"]["enum"]
    assert models == ["filetype", "passthrough"], models


def document() -> dict[str, Any]:
    return json.loads(curl("/v2/openapi.json"))


def check(described: dict[str, Any], schema: dict[str, Any], answer: bytes) -> None:
    # References are into the document, so the schema is put beside its components.
    whole = {**schema, "components": described["components"]}
    Draft202012Validator(whole).validate(json.loads(answer))


CHECKS: list[Callable[[], None]] = [
    a_raw_body_is_the_only_input,
    a_raw_body_that_does_not_tell_the_shape_is_refused,
    curl_takes_compressed_answers,
    compressed_requests_are_answered_as_plain_ones,
    the_document_is_valid_openapi,
    answers_are_what_the_document_says,
]


if __name__ == "__main__":
    raise SystemExit(checks.run(CHECKS))
