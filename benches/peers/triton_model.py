"""Triton's Python backend calling ONNX Runtime: the fewest steps that it allows."""

import os
import sys

# The backend runs Python isolated: it sees neither PYTHONPATH nor a virtual environment.
sys.path.insert(0, os.environ["PEER_PACKAGES"])

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        folder = f"{args['model_repository']}/{args['model_version']}"
        self.session = onnxruntime.InferenceSession(
            f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()
            (y,) = self.session.run([self.output], {self.input: x})
            tensor = pb_utils.Tensor(self.output, y)
            answers.append(pb_utils.InferenceResponse([tensor]))
        return answers
