"""Brokers, nodes and devices for the tests of the MQTT front: real processes on loopback,
each ended by its own pid."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# Longest wait for anything: a cold start compiles a handler and optimises graphs.
PATIENCE = 120.0
POLL = 0.01
PREFIX = "wick/v1/infer"


@dataclass
class Paths:
    """Programs and folders, as the command line names them."""

    wick: Path
    examples: Path
    onnxruntime: Path
    mosquitto: Path
    scratch: Path

    def debian(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """A program of the unpacked packages, with their libraries."""
        env = dict(os.environ)
        folders = sorted(str(path) for path in self.mosquitto.glob("usr/lib/*-linux-*"))
        env["LD_LIBRARY_PATH"] = ":".join(folders)
        return [str(self.mosquitto / program), *args], env


@dataclass
class Answer:
    topic: str
    payload: bytes
    correlation: bytes
    content_type: str
    user: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.user["status"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: str, condition, patience: float = PATIENCE):
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s in vain for {what}")
        time.sleep(POLL)


class Process:
    """A child that is ended by its pid."""

    child: subprocess.Popen | None = None

    def spawn(self, command: list[str], log: Path, **more) -> None:
        with log.open("ab") as output:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=output, **more)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.child is None:
            return 0
        if self.child.poll() is None:
            self.child.send_signal(number)
        code = self.child.wait(timeout=60)
        self.child = None
        return code


class Broker(Process):
    """mosquitto with persistence, on a port that it keeps over restarts."""

    def __init__(self, paths: Paths, name: str, *lines: str) -> None:
        self.paths = paths
        self.port = free_port()
        self.folder = paths.scratch / f"broker-{name}"
        self.folder.mkdir()
        self.log = self.folder / "log"
        lines = lines or ("allow_anonymous true",)
        config = [
            f"listener {self.port} 127.0.0.1",
            *lines,
            "user root",
            "persistence true",
            f"persistence_location {self.folder}/",
            # Tests queue more than the default of 1000.
            "max_queued_messages 0",
            "log_dest stderr",
        ]
        (self.folder / "mosquitto.conf").write_text("\n".join(config) + "\n")

    def start(self) -> None:
        config = str(self.folder / "mosquitto.conf")
        command, env = self.paths.debian("usr/sbin/mosquitto", "-c", config)
        self.spawn(command, self.log, env=env, stdout=subprocess.DEVNULL)
        wait_for("the broker's port", self.listens, 10)

    def listens(self) -> bool:
        assert self.child is not None and self.child.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"


class Node(Process):
    """`wick run` with the MQTT front."""

    def __init__(
        self, paths: Paths, name: str, url: str, *flags: str,
        models: tuple[str, ...] = ("passthrough",), env: dict[str, str] | None = None,
    ) -> None:
        self.log = paths.scratch / f"node-{name}-{time.monotonic_ns()}"
        command = [str(paths.wick), "run", *(str(paths.examples / model) for model in models)]
        command += ["--addr", "127.0.0.1:0", "--output", "json"]
        command += ["--onnxruntime", str(paths.onnxruntime), "--mqtt", url]
        command += ["--mqtt-client-id", name, *flags]
        env = {**os.environ, "RUST_LOG": "info,wick_nn=error", **(env or {})}
        self.spawn(command, self.log, env=env, stdout=subprocess.PIPE)

    def wait_ready(self) -> None:
        assert self.child is not None and self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, f"wick ended: {self.log.read_text()}"
        self.url = json.loads(line)["url"]
        wait_for("readiness", lambda: rest(self.url, "/v2/health/ready")[0] == 200)

    def wait_connected(self) -> None:
        try:
            wait_for("the broker", lambda: self.metric("connected") == 1, 40)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.log.read_text()}") from error

    def metric(self, name: str) -> int:
        return sum_of(self.metrics(), f"wick_mqtt_{name}")

    def metrics(self) -> str:
        return rest(self.url, "/metrics")[1].decode()


def sum_of(metrics: str, name: str) -> int:
    """A metric's value, over all of its labels."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in found))


def rest(url: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
    """Status, body and headers of a REST call."""
    request = urllib.request.Request(url + path, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def properties(kind: int, **values) -> Properties:
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@dataclass
class Device:
    """A paho client that asks and counts what it is answered."""

    port: int
    name: str
    persistent: bool = False
    prefix: str = PREFIX
    answers: list[Answer] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.topic = f"devices/{self.name}/answers"
        self.ready = threading.Event()
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=self.name, protocol=paho.MQTTv5
        )
        self.client.on_connect = self.connected
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = self.take
        self.client.max_queued_messages_set(0)
        self.client.reconnect_delay_set(1, 1)
        expiry = 600 if self.persistent else 0
        self.client.connect(
            "127.0.0.1", self.port, clean_start=not self.persistent,
            properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry),
        )
        self.client.loop_start()
        assert self.ready.wait(10), "the device's subscription"

    def connected(self, client, *_) -> None:
        client.subscribe(self.topic, qos=1)

    def take(self, _client, _data, message) -> None:
        has = message.properties
        answer = Answer(
            message.topic, message.payload, getattr(has, "CorrelationData", b""),
            getattr(has, "ContentType", ""), dict(getattr(has, "UserProperty", [])),
        )
        with self.lock:
            self.answers.append(answer)

    def send(self, model: str, payload: bytes, correlation: str | None, qos: int = 1, **more):
        """Publish a request. `user` are its user properties."""
        values = {"ResponseTopic": self.topic}
        if correlation is not None:
            values["CorrelationData"] = correlation.encode()
        values.update(more.pop("props", {}))
        values = {name: value for name, value in values.items() if value is not None}
        retain = more.pop("retain", False)
        made = properties(PacketTypes.PUBLISH, **values)
        for pair in more.pop("user", {}).items():
            made.UserProperty = pair
        topic = more.pop("topic", f"{self.prefix}/{model}")
        assert not more, more
        return self.client.publish(topic, payload, qos=qos, retain=retain, properties=made)

    def of(self, correlation: str) -> list[Answer]:
        with self.lock:
            return [one for one in self.answers if one.correlation == correlation.encode()]

    def ask(self, model: str, payload: bytes, correlation: str, **more) -> Answer:
        self.send(model, payload, correlation, **more)
        return wait_for(f"the answer to {correlation}", lambda: self.of(correlation), 60)[0]

    def answered(self) -> set[str]:
        with self.lock:
            return {one.correlation.decode() for one in self.answers}

    def wait_all(self, names: set[str], patience: float = PATIENCE) -> None:
        end = time.monotonic() + patience
        while not names <= self.answered():
            missing = names - self.answered()
            assert time.monotonic() < end, f"{len(missing)} of {len(names)} without an answer"
            time.sleep(POLL)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
