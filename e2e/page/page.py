"""Look at the page of a running wick with a real browser.

Usage: page.py HOST:PORT CHROMIUM HOSTILE PICTURES GUARDED TOKEN

The server must serve examples/filetype and examples/passthrough, and the package in the
folder HOSTILE, with --model-control. Pictures of the page go into the folder PICTURES.
GUARDED is the HOST:PORT of one that serves examples/passthrough to who has TOKEN.
Every check prints one line; the exit code is 1 if one of them failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import checks
from playwright.sync_api import Browser, Page, expect, sync_playwright

SCRIPT = b"#!/usr/bin/env python3\nimport sys\n\n\ndef main():\n    print(sys.argv)\n\n\nmain()\n"

# Longest wait for anything on the page, in milliseconds.
TIMEOUT = 10_000

# Violations of the content security policy are kept where a check can read them.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""


@dataclass
class Visit:
    """The page in a context of its own, and what the browser complained of."""

    page: Page
    server: str
    hostile: Path
    pictures: Path
    guarded: str
    token: str
    complaints: list[str] = field(default_factory=list)

    def open(self, fragment: str = "") -> None:
        self.page.goto(f"{self.server}/{fragment}")
        expect(self.page.locator("#models tr").first).to_be_visible()

    def choose(self, model: str) -> None:
        self.page.get_by_role("link", name=model, exact=True).click()
        expect(self.page.locator("#model-title")).to_have_text(model)
        expect(self.page.locator("#try")).to_be_visible()

    def send(self) -> None:
        self.page.get_by_role("button", name="Send").click()

    def output(self, name: str) -> str:
        row = self.page.locator("#outputs tr").filter(has=self.page.get_by_role("rowheader", name=name, exact=True))
        expect(row).to_be_visible()
        return row.locator("td").last.inner_text()

    def curl(self) -> dict[str, object]:
        """What the line that the page shows answers in a shell."""
        line = self.page.locator("#curl").inner_text()
        done = subprocess.run(["sh", "-c", line], cwd=self.pictures, capture_output=True, check=True)
        answer = json.loads(done.stdout)
        assert "error" not in answer, answer
        return {output["name"]: output["data"] for output in answer["outputs"]}

    def post(self, path: str) -> int:
        request = urllib.request.Request(f"{self.server}{path}", data=b"", method="POST")
        try:
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            return error.code


def the_root_leads_to_models_with_their_tensors_and_devices(visit: Visit) -> None:
    visit.open()
    assert visit.page.url == f"{visit.server}/v2/page", visit.page.url
    for model in ["filetype", "hostile", "passthrough"]:
        row = visit.page.get_by_role("row").filter(has_text=model)
        expect(row).to_contain_text("1.0.0")
        expect(row).to_contain_text("ready")
    visit.choose("filetype")
    expect(visit.page.locator("#facts")).to_contain_text("UINT8")
    expect(visit.page.locator("#facts")).to_contain_text("magika")
    expect(visit.page.locator("#facts")).to_contain_text("onnxruntime")
    for name, path in [("Metadata", "/v2"), ("OpenAPI", "/v2/openapi.json"), ("Metrics", "/metrics")]:
        link = visit.page.get_by_role("link", name=name)
        assert link.evaluate("link => link.href") == visit.server + path


def a_file_is_sent_and_answered_as_by_the_curl_line(visit: Visit) -> None:
    file = visit.pictures / "it's a script"
    file.write_bytes(SCRIPT)
    visit.open()
    visit.choose("filetype")
    visit.page.get_by_label("File: the bytes").set_input_files(file)
    visit.send()
    assert visit.output("label") == "python"
    assert float(visit.output("score")) > 0.5
    expect(visit.page.locator("#status")).to_contain_text("Answered in")
    assert visit.curl()["label"] == ["python"]
    visit.page.screenshot(path=visit.pictures / "page.png")


def zeros_and_values_are_sent(visit: Visit) -> None:
    visit.open()
    visit.choose("passthrough")
    visit.page.get_by_label("From").select_option("Zeros")
    visit.send()
    output = visit.page.locator("#outputs tbody tr")
    expect(output).to_contain_text("[1, 2]")
    zeros = output.locator("td").last.inner_text()
    assert [round(n, 4) for n in next(iter(visit.curl().values()))] == [round(float(n), 4) for n in zeros.split(", ")]
    visit.page.get_by_label("From").select_option("Values")
    visit.page.get_by_label("Shape").fill("1, 3, 2, 2")
    visit.page.get_by_label("Values", exact=True).fill("0 0.5, 1 [-1e-3] " + "1 " * 8)
    visit.send()
    expect(visit.page.locator("#curl")).to_contain_text("application/json")
    values = [float(number) for number in output.locator("td").last.inner_text().split(", ")]
    assert abs(sum(values) - 1) < 1e-3, values
    assert visit.curl() == {visit.page.locator("#outputs tbody th").inner_text(): values}


def a_mistake_is_told_in_words(visit: Visit) -> None:
    visit.open()
    visit.choose("passthrough")
    visit.page.get_by_label("From").select_option("Values")
    refusal = visit.page.locator("#refusal")
    visit.page.get_by_label("Shape").fill("1, 3, 2, 2")
    for values, word in [("1, x", "datatype"), ("1, 2, 3", "elements")]:
        visit.page.get_by_label("Values", exact=True).fill(values)
        visit.send()
        expect(refusal).to_contain_text(word)
        expect(visit.page.locator("#answer")).to_be_hidden()
    # The browser writes down answers that are not 200: the server's, for the last one.
    visit.complaints[:] = [text for text in visit.complaints if "400" not in text]


def statistics_follow(visit: Visit) -> None:
    visit.open()
    visit.choose("passthrough")
    requests = visit.page.get_by_role("row").filter(has_text="passthrough").locator("td").nth(2)
    before = int(requests.inner_text())
    visit.page.get_by_label("From").select_option("Zeros")
    visit.send()
    expect(requests).to_have_text(str(before + 1))


def everything_is_done_with_the_keyboard(visit: Visit) -> None:
    visit.open()
    keyboard = visit.page.keyboard

    def tab_to(what: str) -> None:
        for _ in range(40):
            keyboard.press("Tab")
            if visit.page.evaluate("document.activeElement.matches(arguments[0])".replace("arguments[0]", json.dumps(what))):
                return
        raise AssertionError(f"{what} is not reached by Tab")

    tab_to('[data-model*="passthrough"]')
    outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is not seen"
    keyboard.press("Enter")
    expect(visit.page.locator("#model-title")).to_have_text("passthrough")
    expect(visit.page.locator("#model-title")).to_be_focused()
    tab_to("select")
    keyboard.press("Z")
    tab_to("#send")
    keyboard.press("Enter")
    expect(visit.page.locator("#outputs")).to_contain_text("FP32")
    # A refresh of the list must not take the focus away.
    tab_to("#copy")
    nameless = visit.page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter((e) => !e.labels.length).length"
    )
    assert nameless == 0, f"{nameless} controls have no label"


def a_dark_screen_gets_a_dark_page(visit: Visit) -> None:
    shades = {}
    for scheme in ["light", "dark"]:
        visit.page.emulate_media(color_scheme=scheme)
        visit.open()
        visit.choose("passthrough")
        shades[scheme] = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        visit.page.screenshot(path=visit.pictures / f"{scheme}.png", full_page=True)
    light, dark = (sum(map(int, shades[s][4:-1].split(","))) for s in ["light", "dark"])
    assert light > 600 and dark < 150, shades


def a_narrow_screen_has_no_sideways_scrolling(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 740})
    visit.open()
    visit.choose("passthrough")
    visit.page.screenshot(path=visit.pictures / "narrow.png", full_page=True)
    wide = visit.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360, wide


def what_a_package_says_is_never_run(visit: Visit) -> None:
    visit.open()
    visit.choose("hostile")
    expect(visit.page.locator("#description")).to_contain_text("<script>")
    # Names that no package can have yet, put into the server's answer on its way.
    evil = '"><img src=x onerror="window.hacked = true"><script>window.hacked = true</script>'

    def change(route) -> None:
        answer = route.fetch()
        text = answer.text()
        for word in ["save_infer_model", "onnxruntime", "cls"]:
            text = text.replace(word, json.dumps(evil)[1:-1])
        route.fulfill(response=answer, body=text)

    visit.page.route("**/v2/models/hostile/**", change)
    entry = {"name": evil, "version": evil, "state": "UNAVAILABLE", "reason": evil}
    real = {"name": "hostile", "version": "1.0.0", "state": "READY", "reason": evil}
    visit.page.route("**/v2/repository/index", lambda route: route.fulfill(json=[entry, real]))
    visit.page.goto("about:blank")
    visit.open()
    expect(visit.page.locator("#reason")).to_have_text(evil)
    visit.page.get_by_role("link", name="hostile", exact=True).click()
    expect(visit.page.locator("#facts")).to_contain_text("onerror")
    assert visit.page.locator("main img, main script").count() == 0
    assert visit.page.evaluate("window.hacked") is None


def a_model_that_is_not_ready_says_why(visit: Visit) -> None:
    visit.open()
    row = visit.page.get_by_role("row").filter(has_text="hostile")
    assert visit.post("/v2/repository/models/hostile/unload") == 200
    expect(row).to_contain_text("unloaded", timeout=20_000)
    model = visit.hostile / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(b"no model")
    assert visit.post("/v2/repository/models/hostile/load") == 400
    expect(row).to_contain_text("failed", timeout=20_000)
    visit.page.get_by_role("link", name="hostile", exact=True).click()
    expect(visit.page.locator("#reason")).to_contain_text("no ONNX message")
    expect(visit.page.locator("#try")).to_be_hidden()
    model.write_bytes(content)
    assert visit.post("/v2/repository/models/hostile/load") == 200
    expect(visit.page.locator("#try")).to_be_visible(timeout=20_000)


def a_token_is_asked_for_and_used(visit: Visit) -> None:
    visit.page.goto(f"http://{visit.guarded}/v2/page")
    token = visit.page.get_by_label("The server asks for a token")
    for text in ["wrong", visit.token]:
        expect(token).to_be_visible()
        expect(visit.page.locator("#problem")).to_contain_text("token")
        token.fill(text)
        token.press("Enter")
    visit.choose("passthrough")
    expect(token).to_be_hidden()
    expect(visit.page.locator("#problem")).to_be_hidden()
    visit.page.get_by_label("From").select_option("Zeros")
    visit.send()
    expect(visit.page.locator("#curl")).to_contain_text("Bearer $TOKEN")
    assert visit.token not in visit.page.locator("main").inner_text()
    # The browser writes down what the server refused.
    visit.complaints[:] = [text for text in visit.complaints if "401" not in text]


CHECKS: list[Callable[[Visit], None]] = [
    the_root_leads_to_models_with_their_tensors_and_devices,
    a_file_is_sent_and_answered_as_by_the_curl_line,
    zeros_and_values_are_sent,
    a_mistake_is_told_in_words,
    statistics_follow,
    everything_is_done_with_the_keyboard,
    a_dark_screen_gets_a_dark_page,
    a_narrow_screen_has_no_sideways_scrolling,
    what_a_package_says_is_never_run,
    a_model_that_is_not_ready_says_why,
    a_token_is_asked_for_and_used,
]


def run(browser: Browser, check: Callable[[Visit], None]) -> None:
    server, _, hostile, pictures, guarded, token = sys.argv[1:]
    context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme="light")
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    visit = Visit(page, f"http://{server}", Path(hostile), Path(pictures), guarded, token)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("console", lambda line: visit.complaints.append(line.text) if line.type == "error" else None)
    try:
        check(visit)
        violations = page.evaluate("window.violations")
        assert not violations, violations
        assert not visit.complaints, visit.complaints
    finally:
        context.close()


def main() -> int:
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=sys.argv[2])
        code = checks.run(CHECKS, each=lambda check: run(browser, check))
        browser.close()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
