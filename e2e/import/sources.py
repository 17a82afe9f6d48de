"""`wick import` from real servers: MLflow's, and some that speak S3 and Google Cloud Storage.

Usage: sources.py WICK EXAMPLES ONNXRUNTIME SCRATCH FAKE-GCS-SERVER|- [NAME]

What is imported is served beside the package that the model came from, and must answer the same.
Every check prints one line; the last line counts them. NAME runs those that contain it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import checks
from rig import BUCKET, KEYS, S3, Cutter, Gcs, Mlflow, Wick

MODEL = "Text Orientation"


def with_initializers(model):
    """The same model with its constants as initializers: only those are put into other files."""
    from onnx import numpy_helper

    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        value = numpy_helper.to_array(node.attribute[0].t)
        model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        model.graph.node.remove(node)
    return model


class Rig:
    """The servers, started once for all checks."""

    def __init__(
        self, stack: ExitStack, wick: Path, examples: Path, onnxruntime: Path, scratch: Path,
        fake_gcs: Path,
    ) -> None:
        self.fake_gcs = fake_gcs
        self.original = examples / "passthrough"
        self.model = (self.original / "model.onnx").read_bytes()
        self.scratch, self.wick = scratch, Wick(wick, onnxruntime, scratch)
        self.s3 = S3(scratch)
        stack.callback(self.s3.end)
        self.mlflow = Mlflow(scratch, "mlflow")
        stack.callback(self.mlflow.end)
        self.s3.start()
        self.mlflow_on_s3 = Mlflow(scratch, "mlflow-s3", f"s3://{BUCKET}/mlflow", self.s3.env())
        stack.callback(self.mlflow_on_s3.end)
        self.mlflow.start()
        self.mlflow_on_s3.start()
        self.register()

    def register(self) -> None:
        """Log and register models with MLflow's own client."""
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="ERROR", **KEYS)
        os.environ["MLFLOW_S3_ENDPOINT_URL"] = self.s3.url
        os.environ["AWS_ENDPOINT_URL"] = self.s3.url
        import mlflow
        import numpy
        import onnx
        from sklearn.linear_model import LogisticRegression

        # The first version with its weights beside the model, the second with them in it.
        for url, outside in (
            (self.mlflow_on_s3.url, True), (self.mlflow.url, True), (self.mlflow.url, False),
        ):
            mlflow.set_tracking_uri(url)
            # A model that was saved with its weights outside has lost them.
            model = with_initializers(onnx.load_from_string(self.model))
            with mlflow.start_run():
                mlflow.onnx.log_model(
                    model, name="model", registered_model_name=MODEL, save_as_external_data=outside,
                )
        client = mlflow.MlflowClient()
        client.set_registered_model_alias(MODEL, "champion", "2")
        client.update_model_version(MODEL, "2", "Which way is up?\nMore of it.")
        with mlflow.start_run():
            fitted = LogisticRegression().fit(numpy.eye(3), [0, 1, 1])
            mlflow.sklearn.log_model(fitted, name="sk", registered_model_name="churn")

    def same(self, package: Path) -> None:
        """An imported package answers what the original does."""
        ours, theirs = self.wick.answers(self.original, package)
        assert ours == theirs, f"{package} answers otherwise"

    def tracking(self) -> dict:
        return {"MLFLOW_TRACKING_URI": self.mlflow.url}


def mlflow_version_with_weights_beside_it(rig: Rig, out: Path) -> None:
    assert list((rig.scratch / "mlflow/artifacts").rglob("*.data")), "MLflow kept no weights outside"
    made = rig.wick.imported(f"models:/{MODEL}/1", out, env=rig.tracking())
    assert (made["name"], made["version"]) == ("text-orientation", "1.0.0"), made
    assert any("put into it" in note for note in made["notes"]), made
    assert {file.name for file in out.iterdir()} == {"wick.toml", "model.onnx"}
    assert made["signature"]["inputs"][0]["datatype"] == "FP32", made
    rig.same(out)


def mlflow_alias(rig: Rig, out: Path) -> None:
    flags = ["--tracking-uri", rig.mlflow.url]
    made = rig.wick.imported(f"models:/{MODEL}@champion", out, *flags)
    assert made["version"] == "2.0.0", made
    assert 'description = "Which way is up?"' in (out / "wick.toml").read_text()
    rig.same(out)


def mlflow_with_artifacts_in_s3(rig: Rig, out: Path) -> None:
    env = rig.s3.env() | {"MLFLOW_TRACKING_URI": rig.mlflow_on_s3.url}
    made = rig.wick.imported(f"models:/{MODEL}/1", out, env=env)
    assert any("put into it" in note for note in made["notes"]), made
    rig.same(out)


def mlflow_refuses_with_reasons(rig: Rig, out: Path) -> None:
    error = rig.wick.refused("models:/churn/1", out, env=rig.tracking())
    assert error["code"] == "other-format" and error["exit"] == 65, error
    assert "sklearn" in error["error"] and "skl2onnx" in error["help"], error
    for source in ("models:/nobody/1", f"models:/{MODEL}/99", f"models:/{MODEL}@nobody"):
        error = rig.wick.refused(source, out, env=rig.tracking())
        assert error["code"] in ("not-found", "source-refused"), error
        assert "not found" in error["error"], error
    error = rig.wick.refused(f"models:/{MODEL}/1", out)
    assert error["exit"] == 64 and "MLFLOW_TRACKING_URI" in error["error"], error
    # An S3 server is no MLflow server.
    env = {"MLFLOW_TRACKING_URI": rig.s3.url}
    error = rig.wick.refused(f"models:/{MODEL}/1", out, env=env)
    assert error["code"] in ("not-found", "not-a-model", "source-refused"), error


def mlflow_dry_run(rig: Rig, out: Path) -> None:
    made = rig.wick.imported(f"models:/{MODEL}/1", out, "--dry-run", env=rig.tracking())
    assert made["dry_run"] and made["model"] == "model.onnx" and made["size"], made
    assert not out.exists()


def s3_object(rig: Rig, out: Path) -> None:
    rig.s3.put("teams/vision/cls v2.onnx", rig.model)
    digest = hashlib.sha256(rig.model).hexdigest()
    source = f"s3://{BUCKET}/teams/vision/cls%20v2.onnx"
    made = rig.wick.imported(source, out, "--sha256", digest, env=rig.s3.env())
    assert made["name"] == "cls-v2", made
    assert (out / "model.onnx").read_bytes() == rig.model
    rig.same(out)


def s3_prefix_with_weights_beside_the_model(rig: Rig, out: Path) -> None:
    import onnx

    folder = rig.scratch / "outside"
    folder.mkdir()
    model = with_initializers(onnx.load_from_string(rig.model))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    for file in folder.iterdir():
        rig.s3.put(f"nets/orientation/{file.name}", file.read_bytes())
    for number, source in enumerate(("nets/orientation/", "nets/orientation", "nets/orientation/model.onnx")):
        package = Path(f"{out}-{number}")
        made = rig.wick.imported(f"s3://{BUCKET}/{source}", package, env=rig.s3.env())
        assert made["name"] == "orientation", made
        assert {file.name for file in package.iterdir()} == {"wick.toml", "model.onnx"}
    rig.same(package)


def s3_goes_on_after_a_cut(rig: Rig, out: Path) -> None:
    rig.s3.put("cut/net.onnx", rig.model)
    cutter = Cutter(rig.s3.port, cuts=1, after=len(rig.model) // 2)
    try:
        rig.wick.imported(f"s3://{BUCKET}/cut/net.onnx", out, env=rig.s3.env(cutter.url))
    finally:
        cutter.close()
    assert (out / "model.onnx").read_bytes() == rig.model
    assert cutter.cuts == 0, "nothing was cut"
    moved = sum(cutter.moved) / len(rig.model)
    assert moved < 1.3, f"{moved:.2f} times the file was moved"


def s3_refuses_with_reasons(rig: Rig, out: Path) -> None:
    rig.s3.put("other/llama.gguf", b"GGUF\x03" + bytes(100))
    env = rig.s3.env()
    error = rig.wick.refused(f"s3://{BUCKET}/other/", out, env=env)
    assert error["code"] == "other-format" and "GGUF" in error["error"], error
    for source in (f"s3://{BUCKET}/nothing.onnx", f"s3://{BUCKET}/nothing/", "s3://no-such-bucket/a"):
        error = rig.wick.refused(source, out, env=env)
        assert error["code"] == "not-found" and error["exit"] == 66, error
    error = rig.wick.refused(f"s3://{BUCKET}/other/llama.gguf", out, "--max-size", "10B", env=env)
    assert error["code"] == "source-too-large", error


def gcs_object_and_prefix(rig: Rig, out: Path) -> None:
    with ExitStack() as stack:
        gcs = Gcs(rig.scratch, rig.fake_gcs)
        stack.callback(gcs.end)
        gcs.start()
        gcs.put("nets/orientation/model.onnx", rig.model)
        gcs.put("other/llama.gguf", b"GGUF\x03")
        for number, source in enumerate(("nets/orientation/model.onnx", "nets/orientation/")):
            package = Path(f"{out}-{number}")
            made = rig.wick.imported(f"gs://{BUCKET}/{source}", package, env=gcs.env)
            assert made["name"] == "orientation", made
            assert (package / "model.onnx").read_bytes() == rig.model
        error = rig.wick.refused(f"gs://{BUCKET}/nothing.onnx", out, env=gcs.env)
        assert error["code"] == "not-found", error
        error = rig.wick.refused(f"gs://{BUCKET}/other/llama.gguf", out, env=gcs.env)
        assert error["code"] == "other-format", error
    rig.same(package)


CHECKS = [
    mlflow_version_with_weights_beside_it,
    mlflow_alias,
    mlflow_with_artifacts_in_s3,
    mlflow_refuses_with_reasons,
    mlflow_dry_run,
    s3_object,
    s3_prefix_with_weights_beside_the_model,
    s3_goes_on_after_a_cut,
    s3_refuses_with_reasons,
    gcs_object_and_prefix,
]


def main() -> int:
    wick, examples, onnxruntime, scratch, fake_gcs = (Path(text) for text in sys.argv[1:6])
    wanted = sys.argv[6] if len(sys.argv) > 6 else ""
    chosen = [check for check in CHECKS if wanted in check.__name__]
    there = [check for check in chosen if check is not gcs_object_and_prefix or fake_gcs != Path("-")]
    with ExitStack() as stack:
        began = time.monotonic()
        rig = Rig(stack, wick, examples, onnxruntime, scratch, fake_gcs)
        print(f"servers and models are there ({time.monotonic() - began:.1f} s)", flush=True)
        return checks.run(
            there, each=lambda check: check(rig, scratch / f"out-{check.__name__}"),
            ignored=len(chosen) - len(there),
        )


if __name__ == "__main__":
    raise SystemExit(main())
