"""KServe's Python server with models that call ONNX Runtime in the fewest steps.

Usage: kserve_ort.py HTTP_PORT GRPC_PORT NAME=PATH[:threaded]...
"""

import asyncio
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class OnnxModel(Model):
    def __init__(self, name, path, threaded):
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        # A thread for each core helps a model that takes milliseconds, and costs more
        # than it gains with one that takes microseconds.
        self.threads = ThreadPoolExecutor(os.cpu_count()) if threaded else None
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0].as_numpy()
        if self.threads is None:
            y = self.run(x)
        else:
            y = await asyncio.get_running_loop().run_in_executor(self.threads, self.run, x)
        binary = bool(payload.use_binary_outputs)
        output = InferOutput(self.output, list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=binary)
        return InferResponse(
            payload.id or generate_uuid(), self.name, [output], use_binary_outputs=binary
        )

    def run(self, x):
        return self.session.run([self.output], {self.input: x})[0]


def main():
    http_port, grpc_port, *models = sys.argv[1:]
    loaded = []
    for model in models:
        name, path = model.split("=", 1)
        threaded = path.endswith(":threaded")
        loaded.append(OnnxModel(name, path.removesuffix(":threaded"), threaded))
    server = ModelServer(http_port=int(http_port), grpc_port=int(grpc_port))
    # A line for each request would be its server's cost, and no other server writes one.
    for name in ("uvicorn.access", "kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start(loaded)


if __name__ == "__main__":
    main()
