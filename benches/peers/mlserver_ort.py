"""MLServer has no runtime for ONNX: this one calls ONNX Runtime in the fewest steps."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        # A thread for each core helps a model that takes milliseconds, and costs more
        # than it gains with one that takes microseconds.
        threaded = self.settings.parameters.extra.get("threaded", False)
        self.threads = ThreadPoolExecutor(os.cpu_count()) if threaded else None
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        if self.threads is None:
            y = self.run(x)
        else:
            y = await asyncio.get_running_loop().run_in_executor(self.threads, self.run, x)
        output = NumpyCodec.encode_output(self.output, y)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])

    def run(self, x):
        return self.session.run([self.output], {self.input: x})[0]
