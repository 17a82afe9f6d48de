"""Receive the spans of a wick that is started with this collector, and look at them.

Usage: collector.py WICK ARGUMENT...

The arguments are those of `wick run … --addr 127.0.0.1:0 --output json` for examples/passthrough;
`--otlp-endpoint` is added. The collector is grpcio's server with OpenTelemetry's own messages.
Every check prints one line; the exit code is 1 if one of them failed.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent import futures

import checks
import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.proto.trace.v1 import trace_pb2

PATIENCE_S = 30
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
MODEL = "/v2/models/passthrough"

# `model_name`, the first field of a ModelInferRequest, and no inputs.
MESSAGE = b"\n\x0bpassthrough"


class Collector(service.TraceServiceServicer):
    """Keeps every span that it gets, with its resource."""

    def __init__(self) -> None:
        self.spans: queue.Queue = queue.Queue()

    def Export(self, request, context):  # noqa: N802, the name is gRPC's
        for group in request.resource_spans:
            resource = {item.key: item.value.string_value for item in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.put((resource, span))
        return messages.ExportTraceServiceResponse()

    def take(self, count: int) -> list:
        end = time.monotonic() + PATIENCE_S
        return [self.spans.get(timeout=max(0.01, end - time.monotonic())) for _ in range(count)]


def call(server: str, body: dict, flags: str | None = "01") -> int:
    headers = {"Content-Type": "application/json"}
    if flags:
        headers["traceparent"] = f"00-{TRACE}-{CALLER}-{flags}"
    request = urllib.request.Request(f"{server}{MODEL}/infer", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def inputs(server: str) -> dict:
    with urllib.request.urlopen(f"{server}{MODEL}") as answer:
        wanted = json.load(answer)["inputs"][0]
    shape = [size if size > 0 else 1 for size in wanted["shape"]]
    count = 1
    for size in shape:
        count *= size
    tensor = {"name": wanted["name"], "datatype": wanted["datatype"], "shape": shape}
    return {"inputs": [tensor | {"data": [0] * count}]}


def a_request_is_a_child_of_its_caller(collector: Collector, server: str) -> None:
    assert call(server, inputs(server)) == 200
    spans = {span.name: (resource, span) for resource, span in collector.take(3)}
    assert sorted(spans) == ["compute", "infer", "queue"], spans
    resource, infer = spans["infer"]
    assert resource["service.name"] == "wick", resource
    assert infer.trace_id.hex() == TRACE
    assert infer.parent_span_id.hex() == CALLER
    assert infer.kind == trace_pb2.Span.SPAN_KIND_SERVER
    attributes = {item.key: item.value.string_value for item in infer.attributes}
    assert attributes["model"] == "passthrough", attributes
    for name in ["queue", "compute"]:
        span = spans[name][1]
        assert span.trace_id.hex() == TRACE
        assert span.parent_span_id == infer.span_id
        assert infer.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= infer.end_time_unix_nano


def a_failed_request_has_the_status_of_an_error(collector: Collector, server: str) -> None:
    assert call(server, {"inputs": 1}) == 400
    # What can't be read never waits for its turn.
    [(_, span)] = collector.take(1)
    assert span.name == "infer"
    assert span.status.code == trace_pb2.Status.STATUS_CODE_ERROR, span.status
    assert span.status.message, span.status


def a_caller_that_is_not_sampled_leaves_no_spans(collector: Collector, server: str) -> None:
    assert call(server, inputs(server), flags="00") == 200
    assert call(server, {"inputs": 1}, flags=None) == 400
    # Spans are exported in their order: the next is the second request's.
    [(_, span)] = collector.take(1)
    assert span.trace_id.hex() != TRACE
    assert not span.parent_span_id


def a_call_over_grpc_is_a_child_of_its_caller(collector: Collector, server: str) -> None:
    with grpc.insecure_channel(server.removeprefix("http://")) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            infer(MESSAGE, metadata=[("traceparent", SAMPLED)], timeout=PATIENCE_S)
            raise AssertionError("a request without inputs was answered")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    spans = {span.name: span for _, span in collector.take(3)}
    assert spans["infer"].trace_id.hex() == TRACE
    assert spans["infer"].parent_span_id.hex() == CALLER
    assert spans["infer"].status.code == trace_pb2.Status.STATUS_CODE_ERROR


CHECKS = [
    a_request_is_a_child_of_its_caller,
    a_failed_request_has_the_status_of_an_error,
    a_call_over_grpc_is_a_child_of_its_caller,
    a_caller_that_is_not_sampled_leaves_no_spans,
]


def main() -> int:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    service.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [*sys.argv[1:], "--otlp-endpoint", f"http://127.0.0.1:{port}"]
    wick = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        banner = json.loads(wick.stdout.readline())
        return checks.run(CHECKS, collector, banner["url"])
    finally:
        wick.send_signal(signal.SIGTERM)
        wick.wait(timeout=PATIENCE_S)
        server.stop(None)


if __name__ == "__main__":
    raise SystemExit(main())
