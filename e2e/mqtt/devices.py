"""Drive the MQTT front of real nodes over a real broker, with paho devices.

Usage: devices.py WICK EXAMPLES ONNXRUNTIME MOSQUITTO SCRATCH [NAME]

Every check prints one line; the last line counts them. NAME runs those that contain it.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import checks
import trustme

from rig import PATIENCE, Broker, Device, Node, Paths, rest, sum_of, wait_for

SCRIPT = b"#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print(sys.argv)\n\n\nmain()\n"
SHAPE = [1, 3, 48, 192]
ELEMENTS = 3 * 48 * 192
BINARY = "application/octet-stream"
LENGTH = "inference-header-content-length"


def filetype_json(content: bytes) -> bytes:
    tensor = {"name": "bytes", "datatype": "UINT8", "shape": [len(content)], "data": list(content)}
    return json.dumps({"id": "j", "inputs": [tensor]}).encode()


def filetype_binary(content: bytes) -> tuple[bytes, int]:
    size = {"binary_data_size": len(content)}
    tensor = {"name": "bytes", "datatype": "UINT8", "shape": [len(content)], "parameters": size}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return header + content, len(header)


def pixels(value: int) -> bytes:
    """A binary request for the passthrough example; its answer is small."""
    return bytes([0, 0, value % 256, 60]) * ELEMENTS


def passthrough(value: int) -> tuple[bytes, int]:
    data = pixels(value)
    size = {"binary_data_size": len(data)}
    tensor = {"name": "x", "datatype": "FP32", "shape": SHAPE, "parameters": size}
    header = json.dumps({"inputs": [tensor]}).encode()
    return header + data, len(header)


class Rig(ExitStack):
    """What one check starts, and ends with it."""

    def __init__(self, paths: Paths, name: str) -> None:
        super().__init__()
        self.paths, self.name, self.brokers = paths, name, 0

    def broker(self, *lines: str) -> Broker:
        self.brokers += 1
        broker = Broker(self.paths, f"{self.name}-{self.brokers}", *lines)
        self.callback(broker.end)
        broker.start()
        return broker

    def node(self, broker: Broker, name: str, *flags: str, **more) -> Node:
        connect = more.pop("connect", True)
        node = Node(self.paths, name, more.pop("url", broker.url), *flags, **more)
        # From here on, it is ended whatever happens.
        self.callback(node.end, signal.SIGKILL)
        node.wait_ready()
        if connect:
            node.wait_connected()
        return node

    def device(self, broker: Broker, name: str = "device", **more) -> Device:
        device = Device(broker.port, name, **more)
        self.callback(device.close)
        return device


def answers_are_rests(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a", models=("filetype", "passthrough"))
    device = rig.device(broker)
    text = filetype_json(SCRIPT)
    answer = device.ask("filetype", text, "json", props={"ContentType": "application/json"})
    status, body, _ = rest(node.url, "/v2/models/filetype/infer", text)
    assert (answer.status, answer.payload) == (status, body), answer
    assert answer.content_type == "application/json" and b"python" in body, answer
    assert set(answer.user) == {"status"}, answer
    for model, (body, length) in {
        "filetype": filetype_binary(SCRIPT), "passthrough": passthrough(3),
    }.items():
        props = {"ContentType": BINARY}
        answer = device.ask(model, body, f"b-{model}", props=props, user={LENGTH: str(length)})
        headers = {"Inference-Header-Content-Length": str(length)}
        status, want, has = rest(node.url, f"/v2/models/{model}/infer", body, headers)
        assert (answer.status, answer.payload) == (status, want) == (200, want), answer
        assert answer.user.get(LENGTH) == has.get("Inference-Header-Content-Length"), answer
    raw = device.ask("filetype/versions/1.0.0", SCRIPT, "raw", props={"ContentType": BINARY})
    assert raw.status == 200 and raw.content_type == BINARY and b"python" in raw.payload, raw
    unnamed = device.send("filetype", text, None)
    unnamed.wait_for_publish(10)
    wait_for("an answer without correlation data", lambda: device.of(""), 30)


def errors_are_answers(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a", models=("filetype", "passthrough"))
    device = rig.device(broker)
    deep = b'{"inputs":' + b"[" * 100_000
    cases = {
        "garbage": ("filetype", bytes(range(256)), {}, {}, 400),
        "deep": ("filetype", deep, {}, {}, 400),
        "empty": ("filetype", b"", {}, {}, 400),
        "tensor": ("passthrough", filetype_json(b"x"), {}, {}, 400),
        "version": ("filetype/versions/9.9.9", filetype_json(b"x"), {}, {}, 404),
        "past": ("filetype", b"{}", {}, {LENGTH: "99"}, 400),
        "length": ("filetype", b"{}", {}, {LENGTH: "-1"}, 400),
        "type": ("filetype", b"{}", {"ContentType": "text/plain"}, {}, 400),
    }
    for name, (model, body, props, user, want) in cases.items():
        answer = device.ask(model, body, name, props=props, user=user)
        error = json.loads(answer.payload)
        assert answer.status == want and answer.user["code"] == error["code"], (name, answer)
        if name in ("garbage", "deep", "empty", "tensor", "version"):
            path = f"/v2/models/{model}/infer"
            assert rest(node.url, path, body)[:2] == (want, answer.payload), (name, answer)
    assert node.metric("failed") == len(cases), node.metrics()
    assert device.ask("filetype", filetype_json(SCRIPT), "after").status == 200


def a_repeat_is_not_computed_again(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a")
    device = rig.device(broker)
    body, length = passthrough(1)
    for _ in range(3):
        device.send("passthrough", body, "same", user={LENGTH: str(length)})
    wait_for("three answers", lambda: len(device.of("same")) >= 1 and node.metric("received") == 3)
    settled(node)
    assert {one.payload for one in device.of("same")} == {device.of("same")[0].payload}
    metrics = node.metrics()
    assert sum_of(metrics, "nv_inference_request_success") == 1, metrics
    assert node.metric("duplicates") == 2, metrics
    # The same name for another content is another request.
    other, length = passthrough(2)
    device.send("passthrough", other, "same", user={LENGTH: str(length)})
    wait_for(
        "a second inference",
        lambda: sum_of(node.metrics(), "nv_inference_request_success") == 2,
    )


def settled(node: Node) -> None:
    """Everything is answered and acknowledged."""
    wait_for(
        "delivery", lambda: node.metric("in_flight") == 0 and node.metric("waiting") == 0
    )


def flow(device: Device, count: int, label: str, start: int = 0, pause: float = 0.0) -> set[str]:
    """Send requests of QoS 1, each with its own name."""
    names = set()
    for number in range(start, start + count):
        body, length = passthrough(number)
        name = f"{label}-{number}"
        device.send("passthrough", body, name, user={LENGTH: str(length)})
        names.add(name)
        time.sleep(pause)
    return names


def two_nodes_share_the_load(rig: Rig) -> None:
    broker = rig.broker()
    nodes = [rig.node(broker, name) for name in ("a", "b")]
    device = rig.device(broker)
    names = flow(device, 200, "shared")
    device.wait_all(names)
    for node in nodes:
        settled(node)
    assert len(device.answers) == 200, len(device.answers)
    assert {one.status for one in device.answers} == {200}
    received = [node.metric("received") for node in nodes]
    assert sum(received) == 200 and min(received) > 20, received
    assert sum(node.metric("duplicates") for node in nodes) == 0


def a_killed_node_loses_nothing(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a")
    device = rig.device(broker)
    names = flow(device, 400, "killed")
    # In the middle: some are answered, some computed, some not begun.
    wait_for("some answers", lambda: len(device.answers) > 20)
    node.end(signal.SIGKILL)
    seen = len(device.answered())
    again = rig.node(broker, "a")
    device.wait_all(names)
    assert seen < 400, "the node was too fast: nothing was left when it was killed"
    assert {one.status for one in device.answers} == {200}
    settled(again)


def a_broker_restart_loses_nothing(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a")
    device = rig.device(broker, "lasting", persistent=True)
    names = flow(device, 300, "before")
    wait_for("some answers", lambda: len(device.answers) > 10)
    broker.end()
    seen = len(device.answered())
    assert seen < 300, "everything was answered before the restart"
    # The device goes on; its library keeps what it can't send.
    names |= flow(device, 50, "during")
    wait_for("the node to notice", lambda: node.metric("connected") == 0)
    assert rest(node.url, "/v2/health/ready")[0] == 200, "readiness depends on the broker"
    broker.start()
    names |= flow(device, 50, "after")
    device.wait_all(names)
    assert {one.status for one in device.answers} == {200}
    settled(node)
    assert node.metric("connections") == 2, node.metrics()
    broker.end()
    assert node.end() == 0, "a node can't end without its broker"


def a_broker_that_comes_late_is_found(rig: Rig) -> None:
    broker = rig.broker()
    broker.end()
    node = rig.node(broker, "a", connect=False)
    assert node.metric("connected") == 0
    body, length = passthrough(1)
    headers = {"Inference-Header-Content-Length": str(length)}
    assert rest(node.url, "/v2/models/passthrough/infer", body, headers)[0] == 200
    wait_for("a word in the log", lambda: "no connection to the broker" in node.log.read_text())
    broker.start()
    node.wait_connected()
    device = rig.device(broker)
    device.wait_all(flow(device, 5, "late"))


def a_stopped_node_hands_over(rig: Rig) -> None:
    broker = rig.broker()
    first = rig.node(broker, "a")
    rig.node(broker, "b")
    device = rig.device(broker)
    names = flow(device, 60, "first")
    assert first.end() == 0
    names |= flow(device, 40, "second")
    device.wait_all(names)
    assert {one.status for one in device.answers} == {200}
    assert len(device.answers) == 100, "a request was answered twice"


def overload_is_bounded(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a", "--mqtt-in-flight", "8")
    device = rig.device(broker)
    names = flow(device, 400, "many")
    most = 0
    end = time.monotonic() + PATIENCE
    while not names <= device.answered():
        most = max(most, node.metric("in_flight"))
        assert time.monotonic() < end, "not everything was answered"
    assert 0 < most <= 8, most
    statuses = {one.status for one in device.answers}
    assert statuses <= {200, 429, 503} and 200 in statuses, statuses


def hostile_devices_end_nothing(rig: Rig) -> None:
    broker = rig.broker()
    node = rig.node(broker, "a", "--max-body", "1MiB", models=("filetype",))
    device = rig.device(broker)
    body = filetype_json(b"x")
    topics = {
        "no-response-topic": None,
        "response-topic-loop": "wick/v1/infer/filetype",
        "response-topic-reserved": "wick/v1/mill/desired",
        "response-topic-too-long": "x" * 5000,
    }
    for topic in topics.values():
        device.send("filetype", body, "hostile", props={"ResponseTopic": topic})
    device.send("filetype", body, "hostile", qos=2)
    device.ask("filetype", b"x" * (1 << 20), "at the limit")
    device.send("filetype", b"x" * (2 << 20), "past the limit")
    for size in range(0, 60_000, 5_000):
        device.send("filetype", b"\xff" * 10, None, props={"CorrelationData": b"c" * size}, qos=0)
    device.send("", body, "hostile", topic="wick/v1/infer/filetype/versions/")
    for reason in topics:
        wait_for(reason, lambda reason=reason: f'reason="{reason}"}} 1' in node.metrics(), 20)
    assert "has no place for an answer" in node.log.read_text()
    # A request that the broker keeps is answered once, and not again by who comes later.
    device.send("filetype", body, "kept", retain=True).wait_for_publish(10)
    kept = device.ask("filetype", body, "after")
    assert kept.status == 200, kept
    late = rig.node(broker, "late", models=("filetype",))
    assert late.metric("received") == 0, late.metrics()
    assert node.child is not None and node.child.poll() is None
    device.wait_all({"hostile", "at the limit", "after"})
    assert not device.of("past the limit")


def an_answer_that_may_not_be_written_is_counted(rig: Rig) -> None:
    rules = rig.paths.scratch / "acl"
    rules.write_text("topic readwrite wick/v1/infer/#\ntopic readwrite devices/#\n")
    broker = rig.broker("allow_anonymous true", f"acl_file {rules}")
    node = rig.node(broker, "a", models=("filetype",))
    device = rig.device(broker)
    props = {"ResponseTopic": "elsewhere/answers"}
    device.send("filetype", filetype_json(b"x"), "lost", props=props)
    wait_for("a refusal", lambda: "does not take an answer" in node.log.read_text(), 20)
    # This broker also cuts the connection; the request must not come again for ever.
    assert device.ask("filetype", filetype_json(b"x"), "found").status == 200
    settled(node)
    assert node.metric("refused_answers") == 1, node.metrics()
    device.send("filetype", filetype_json(b"x"), None, props=props)
    reason = 'reason="response-topic-refused"} '
    wait_for("no second try", lambda: int(node.metrics().split(reason)[1].split()[0]) >= 1, 20)
    assert node.metric("refused_answers") == 1, node.metrics()
    assert device.ask("filetype", filetype_json(b"x"), "still").status == 200


def tls_with_users_and_certificates(rig: Rig) -> None:
    folder = rig.paths.scratch / "tls"
    folder.mkdir()
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    for name, made in {
        "server": ca.issue_cert("127.0.0.1", "localhost"), "node": ca.issue_cert("node-1", common_name="node-1"),
    }.items():
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    passwords = folder / "passwords"
    command, env = rig.paths.debian(
        "usr/bin/mosquitto_passwd", "-c", "-b", str(passwords), "node", "right"
    )
    subprocess.run(command, env=env, check=True)
    files = [f"cafile {folder}/ca.pem", f"certfile {folder}/server.pem"]
    files.append(f"keyfile {folder}/server.key")
    trust = ["--mqtt-ca", str(folder / "ca.pem")]
    user = ["--mqtt-username", "node"]

    broker = rig.broker(*files, "allow_anonymous false", f"password_file {passwords}")
    url = f"mqtts://127.0.0.1:{broker.port}"
    (folder / "right").write_text("right\n")
    flags = [*trust, *user, "--mqtt-password-file", str(folder / "right")]
    rig.node(broker, "file", *flags, url=url)
    env = {"WICK_MQTT_PASSWORD": "right"}
    rig.node(broker, "environment", *trust, *user, url=url, env=env)
    for name, more, env, word in [
        ("wrong", [*trust, *user], {"WICK_MQTT_PASSWORD": "wrong"}, "user `node` is refused"),
        ("nobody", trust, {}, "user `(none)` is refused"),
        ("untrusted", ["--mqtt-ca", str(folder / "other.pem")], {}, "UnknownIssuer"),
    ]:
        refused = rig.node(broker, name, *more, url=url, env=env, connect=False)
        wait_for(word, lambda: word in refused.log.read_text(), 20)  # noqa: B023
        assert refused.metric("connected") == 0
        assert "wrong\"" not in refused.log.read_text(), "a password is in the log"

    broker = rig.broker(*files, "require_certificate true", "use_identity_as_username true")
    url = f"mqtts://127.0.0.1:{broker.port}"
    certificate = ["--mqtt-cert", str(folder / "node.pem"), "--mqtt-key", str(folder / "node.key")]
    rig.node(broker, "certified", *trust, *certificate, url=url)
    bare = rig.node(broker, "bare", *trust, url=url, connect=False)
    wait_for("a refusal", lambda: "no connection to the broker" in bare.log.read_text(), 20)
    assert bare.metric("connected") == 0


def the_documented_devices_work(rig: Rig) -> None:
    page = (Path(__file__).parents[2] / "docs/mqtt.md").read_text()
    broker = rig.broker()
    rig.node(broker, "a", models=("filetype",))
    photo = rig.paths.scratch / "photo.jpg"
    photo.write_bytes(SCRIPT)
    code = page.split("```python\n")[1].split("```")[0]
    code = code.replace("1883", str(broker.port)).replace("photo.jpg", str(photo))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert done.stdout.startswith(b"200 ") and b"python" in done.stdout, done
    line = page[page.index("mosquitto_rr -V") :].split("```")[0].replace("\\\n", " ")
    more = ["-p", str(broker.port), "-W", "20"]
    command, env = rig.paths.debian("usr/bin/mosquitto_rr", *shlex.split(line)[1:], *more)
    done = subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)
    assert b'"name":"label"' in done.stdout, done


CHECKS = [
    answers_are_rests,
    errors_are_answers,
    a_repeat_is_not_computed_again,
    two_nodes_share_the_load,
    a_killed_node_loses_nothing,
    a_broker_restart_loses_nothing,
    a_broker_that_comes_late_is_found,
    a_stopped_node_hands_over,
    overload_is_bounded,
    hostile_devices_end_nothing,
    an_answer_that_may_not_be_written_is_counted,
    tls_with_users_and_certificates,
    the_documented_devices_work,
]


def run(paths: Paths, check: Callable[[Rig], None]) -> None:
    with Rig(paths, check.__name__) as rig:
        check(rig)


def main() -> int:
    paths = Paths(*(Path(text) for text in sys.argv[1:6]))
    wanted = sys.argv[6] if len(sys.argv) > 6 else ""
    chosen = [check for check in CHECKS if wanted in check.__name__]
    return checks.run(chosen, each=lambda check: run(paths, check))


if __name__ == "__main__":
    raise SystemExit(main())
