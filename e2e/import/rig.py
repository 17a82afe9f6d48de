"""What the checks of `wick import` are made with: servers, the executable, and comparisons."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

# Longest wait for a server: MLflow makes its database first.
PATIENCE = 120.0

BUCKET = "models"
SHAPE = [1, 3, 48, 192]

# What every S3 client of the checks uses; moto takes any.
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url: str, body: bytes | None = None, timeout: float = 60) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def wait_for(what: str, ready, timeout: float = PATIENCE):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if found := ready():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(what)


class Process:
    """A server in a process group of its own, so that its workers end with it."""

    def __init__(self, name: str, log: Path, command: list, env: dict | None = None) -> None:
        self.name = name
        with log.open("wb") as out:
            self.child = subprocess.Popen(
                [str(word) for word in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                env=os.environ | (env or {}), start_new_session=True, cwd=log.parent,
            )
        self.log = log

    def wait_ready(self, url: str) -> None:
        def answers() -> bool:
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-2000:]}")
            return fetch(url)[0] == 200

        wait_for(self.name, answers)

    def end(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()


class Mlflow(Process):
    """A tracking server. Artifacts go through it, or where `root` says."""

    def __init__(self, scratch: Path, name: str, root: str = "", env: dict | None = None) -> None:
        port, folder = free_port(), scratch / name
        folder.mkdir()
        self.url = f"http://127.0.0.1:{port}"
        where = ["--artifacts-destination", folder / "artifacts"]
        if root:
            where = ["--no-serve-artifacts", "--default-artifact-root", root]
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port,
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", 1, *where,
        ]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        super().__init__(name, folder / "log", command, quiet | (env or {}))

    def start(self) -> None:
        self.wait_ready(f"{self.url}/health")


class S3(Process):
    def __init__(self, scratch: Path) -> None:
        port = free_port()
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
        super().__init__("moto", scratch / "moto.log", command)

    def start(self) -> None:
        import boto3

        self.wait_ready(f"{self.url}/moto-api/")
        keys = {key.lower(): value for key, value in KEYS.items()}
        region = keys.pop("aws_default_region")
        self.client = boto3.client("s3", endpoint_url=self.url, region_name=region, **keys)
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def env(self, url: str | None = None) -> dict:
        return KEYS | {"AWS_ENDPOINT_URL": url or self.url, "AWS_ALLOW_HTTP": "true"}


class Gcs(Process):
    """A server that speaks Google Cloud Storage, with everything in memory."""

    def __init__(self, scratch: Path, executable: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            executable, "-scheme", "http", "-host", "127.0.0.1", "-port", port,
            "-public-host", f"127.0.0.1:{port}", "-backend", "memory",
        ]
        super().__init__("fake-gcs-server", scratch / "gcs.log", command)
        account = scratch / "gcs.json"
        names = ("client_email", "private_key", "private_key_id")
        account.write_text(json.dumps(
            dict.fromkeys(names, "") | {"gcs_base_url": self.url, "disable_oauth": True}
        ))
        self.env = {"GOOGLE_SERVICE_ACCOUNT": str(account)}

    def start(self) -> None:
        self.wait_ready(f"{self.url}/storage/v1/b")
        made = urllib.request.Request(
            f"{self.url}/storage/v1/b", json.dumps({"name": BUCKET}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(made, timeout=PATIENCE).close()

    def put(self, key: str, body: bytes) -> None:
        path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={key}"
        assert fetch(self.url + path, body)[0] == 200


class Cutter:
    """A proxy that breaks off its answers after some bytes, as often as it is told."""

    def __init__(self, port: int, cuts: int, after: int) -> None:
        self.port, self.cuts, self.after = port, cuts, after
        self.moved: list[int] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.port)) as far:
            threading.Thread(target=self.pump, args=(near, far), daemon=True).start()
            moved = 0
            while chunk := far.recv(1 << 16):
                near.sendall(chunk)
                moved += len(chunk)
                if moved > self.after and self.cuts > 0:
                    self.cuts -= 1
                    near.shutdown(socket.SHUT_RDWR)
                    break
            self.moved.append(moved)

    @staticmethod
    def pump(near: socket.socket, far: socket.socket) -> None:
        try:
            while chunk := near.recv(1 << 16):
                far.sendall(chunk)
        except OSError:
            pass

    def close(self) -> None:
        self.listener.close()


class Wick:
    """The executable, with folders of its own."""

    def __init__(self, wick: Path, onnxruntime: Path, scratch: Path) -> None:
        self.wick, self.onnxruntime, self.scratch = wick, onnxruntime, scratch

    def run(self, *args, env: dict | None = None) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "AZURE_", "GOOGLE_", "MLFLOW_"))}
        home = {"HOME": str(self.scratch / "home"), "NO_COLOR": "1"}
        words = [str(self.wick), *map(str, args)]
        return subprocess.run(
            words, capture_output=True, text=True, env=clean | home | (env or {}),
            cwd=self.scratch, timeout=PATIENCE,
        )

    def imported(self, source: str, out: Path, *flags, env: dict | None = None) -> dict:
        done = self.run("import", source, "-o", out, "--output", "json", *flags, env=env)
        assert done.returncode == 0, f"{source}: {done.stdout}{done.stderr}"
        assert not list(out.parent.glob(".*.wick-import")), "something is left over"
        return json.loads(done.stdout)

    def refused(self, source: str, out: Path, *flags, env: dict | None = None) -> dict:
        """An import that fails; its error, with the exit code and what is said in all."""
        done = self.run("import", source, "-o", out, "--output", "json", *flags, env=env)
        assert done.returncode != 0, f"{source} was imported: {done.stdout}"
        assert not out.exists(), f"{out} is there after {done.stdout}"
        return json.loads(done.stdout) | {"exit": done.returncode, "all": done.stdout}

    def answers(self, *packages: Path) -> list[dict]:
        """Serve packages together and ask each for the same; outputs without names of models."""
        command = [
            self.wick, "run", *packages, "--addr", "127.0.0.1:0", "--output", "json",
            "--onnxruntime", self.onnxruntime,
        ]
        env = os.environ | {"HOME": str(self.scratch / "home"), "RUST_LOG": "error"}
        child = subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, text=True, env=env)
        try:
            line = child.stdout.readline()
            assert line, "wick did not listen"
            url = json.loads(line)["url"].rstrip("/")
            wait_for("wick", lambda: fetch(f"{url}/v2/health/ready")[0] == 200)
            names = [model["name"] for model in json.loads(line)["models"]]
            return [self.ask(url, name) for name in names]
        finally:
            child.terminate()
            child.wait(30)

    @staticmethod
    def ask(url: str, name: str) -> dict:
        count = SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3]
        data = [(i * 37 % 255) / 255 for i in range(count)]
        tensor = {"name": "x", "datatype": "FP32", "shape": SHAPE, "data": data}
        body = json.dumps({"inputs": [tensor]}).encode()
        status, answer = fetch(f"{url}/v2/models/{name}/infer", body)
        assert status == 200, (name, status, answer)
        return json.loads(answer)["outputs"]
