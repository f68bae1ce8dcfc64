#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Works the page of `vgpio board` in headless Chromium, by WebDriver. Run by scripts/board-test,
with a guest and a directory that has what is needed to reach it."""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

VGPIO = os.environ["VGPIO"]
TOP = Path(os.environ["TOP"])
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE = 60

# The time of each animation frame, and of each change of a switch after it was clicked.
MEASURE = """
window.frames = [];
window.answers = [];
const tick = (now) => { window.frames.push(now); requestAnimationFrame(tick); };
requestAnimationFrame(tick);
const control = document.querySelector(arguments[0]);
let clicked = null;
control.addEventListener("click", () => { clicked = performance.now(); });
new MutationObserver(() => {
    if (clicked !== null)
        window.answers.push(performance.now() - clicked);
    clicked = null;
}).observe(control, { attributes: true, attributeFilter: ["aria-checked"] });
"""


def eventually(what, function):
    """Waits until `function` returns something true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while not (value := function()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        time.sleep(0.01)
    return value


class Browser:
    """A session of Chromium."""

    def __init__(self, *options):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                break
        self.url = f"http://127.0.0.1:{found[1]}"
        # What the test runs in is the sandbox.
        args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", *options]
        asked = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": args},
                                 "goog:loggingPrefs": {"browser": "ALL"}}}  # fmt: skip
        self.url += "/session/" + self.call("POST", "/session", {"capabilities": asked})["sessionId"]

    def call(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as err:
            raise AssertionError(json.load(err)["value"]["message"]) from None

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self.call("DELETE", "")
        self.driver.terminate()
        self.driver.wait()
        self.driver.stdout.close()

    def open(self, url):
        self.call("POST", "/url", {"url": url})
        eventually("the page is there", lambda: not self.script("return document.body.classList.contains('offline')"))

    def script(self, code, *args):
        return self.call("POST", "/execute/sync", {"script": code, "args": args})

    def labelled(self, name):
        """The element whose accessible name starts with this, once it is drawn."""
        code = f"return document.querySelector(\"[aria-label^='{name}']\")"
        return eventually(f"there is {name}", lambda: self.script(code))[ELEMENT]

    def attribute(self, name, attribute):
        return self.script("return arguments[0].getAttribute(arguments[1])", {ELEMENT: self.labelled(name)}, attribute)

    def click(self, name):
        self.call("POST", f"/element/{self.labelled(name)}/click")

    def pointer(self, kind, name, *actions):
        origin = {ELEMENT: self.labelled(name)}
        steps = [{"type": "pointerMove", "x": 0, "y": 0, "origin": origin}]
        for action in actions:
            steps.append({"type": "pause", "duration": 1000} if action == "pause" else {"type": action, "button": 0})
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self.call("POST", "/actions", {"actions": [source]})

    def key(self, action, value):
        source = {"type": "key", "id": "keyboard", "actions": [{"type": action, "value": value}]}
        self.call("POST", "/actions", {"actions": [source]})

    def status(self):
        return self.script("return document.getElementById('status').textContent")

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def messages(self):
        """What the page and the browser complain about."""
        return [it["message"] for it in self.call("POST", "/se/log", {"type": "browser"})]


class Daemon:
    """A `vgpio serve` without a guest."""

    def __init__(self, *devices):
        self.control = TOP / "own-control"
        self.args = [VGPIO, "--control", self.control, "serve"]
        for index, device in enumerate(devices):
            self.args += ["--device", f"socket={TOP}/own{index},{device}"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()
        self.process.stdout.close()

    def run(self, *args):
        return vgpio(self.control, *args)


def vgpio(control, *args):
    done = subprocess.run([VGPIO, "--control", control, *args], check=True, capture_output=True, text=True)
    return done.stdout


class Page(unittest.TestCase):
    """The page, on devices without a guest unless a test is about one."""

    def board(self, control, *args):
        board = subprocess.Popen([VGPIO, "--control", control, "board", *args], stdout=subprocess.PIPE, text=True)
        self.addCleanup(board.stdout.close)
        self.addCleanup(board.wait)
        self.addCleanup(board.kill)
        return board.stdout.readline().strip()

    def daemon(self, *devices):
        daemon = Daemon(*devices)
        self.addCleanup(daemon.stop)
        return daemon

    def browser(self, url, *options):
        browser = Browser(*options)
        self.addCleanup(browser.close)
        browser.open(url)
        return browser

    def test_guest(self):
        """Presses a button, which gpiomon in the guest prints; the guest drives the lamp."""
        control = TOP / "control"
        output = TOP / "guest"
        eventually("the guest is started", control.exists)
        eventually("gpiomon runs", lambda: "irq=both armed" in vgpio(control, "info", "button"))
        browser = self.browser(self.board(control))
        self.assertEqual(browser.status(), "vgpio0: guest connected")
        self.assertEqual(browser.attribute("led", "aria-label"), "led: off")
        browser.pointer("mouse", "button", "pointerDown")
        eventually("a rising edge", lambda: "rising" in output.read_text())
        self.assertNotIn("falling", output.read_text())
        browser.pointer("mouse", "button", "pointerUp")
        eventually("a falling edge", lambda: "falling" in output.read_text())
        eventually("the lamp is lit", lambda: browser.attribute("led", "aria-label") == "led: on")
        self.assertIn("led=active\n", vgpio(control, "get", "--unquoted", "led"))
        eventually("gpiomon runs again", lambda: "irq=both armed" in vgpio(control, "info", "button"))
        browser.pointer("mouse", "button", "pointerDown", "pointerUp")
        eventually("the guest has gone", lambda: re.search("no guest|No devices", browser.status()))

    def test_two_browsers(self):
        """Keyboard, mouse and touch; what one browser changes the other shows."""
        daemon = self.daemon("lines=3,names=led:button:switch")
        url = self.board(daemon.control)
        one = self.browser(url)
        two = self.browser(url, "--touch-events=enabled")
        one.pointer("mouse", "button", "pointerDown")
        eventually("pressed", lambda: two.attribute("button", "aria-pressed") == "true")
        self.assertEqual(daemon.run("get", "--numeric", "button"), "1\n")
        one.pointer("mouse", "button", "pointerUp")
        eventually("released", lambda: two.attribute("button", "aria-pressed") == "false")
        # chromedriver forgets a finger from one call to the next.
        finger = threading.Thread(target=two.pointer, args=("touch", "button", "pointerDown", "pause", "pointerUp"))
        finger.start()
        eventually("touched", lambda: one.attribute("button", "aria-pressed") == "true")
        finger.join()
        eventually("released", lambda: one.attribute("button", "aria-pressed") == "false")
        # By the shortcuts, and by the keys that work a focused button.
        one.key("keyDown", "1")
        eventually("pressed", lambda: two.attribute("button", "aria-pressed") == "true")
        one.key("keyUp", "1")
        eventually("released", lambda: two.attribute("button", "aria-pressed") == "false")
        one.key("keyDown", "2")
        one.key("keyUp", "2")
        eventually("switched", lambda: two.attribute("switch", "aria-checked") == "true")
        two.script("arguments[0].focus()", {ELEMENT: two.labelled("button")})
        two.key("keyDown", " ")
        eventually("pressed", lambda: one.attribute("button", "aria-pressed") == "true")
        two.key("keyUp", " ")
        eventually("released", lambda: one.attribute("button", "aria-pressed") == "false")
        # A browser that is closed lets its buttons go.
        one.pointer("mouse", "button", "pointerDown")
        eventually("pressed", lambda: two.attribute("button", "aria-pressed") == "true")
        one.close()
        eventually("released", lambda: two.attribute("button", "aria-pressed") == "false")
        self.assertEqual(two.messages(), [])

    def test_names_and_roles(self):
        """All that can be worked or read has a role and a name."""
        segments = ":".join(f"digit0-{it}" for it in "abcdefg")
        daemon = self.daemon(f"lines=10,names={segments}:led:key:sw,values=1011011")
        browser = self.browser(self.board(daemon.control))
        for name, role in [("digit0", "image"), ("led", "image"), ("key", "button"), ("sw", "switch")]:
            element = browser.labelled(name)
            self.assertEqual(browser.call("GET", f"/element/{element}/computedrole"), role)
        self.assertEqual(browser.attribute("digit0", "aria-label"), "digit0: 5")
        unnamed = browser.script("""
            return [...document.querySelectorAll("button, [role], select")]
                .filter((it) => !(it.ariaLabel || it.textContent.trim())).length""")
        self.assertEqual(unnamed, 0)
        self.assertEqual(browser.messages(), [])

    def test_daemon_gone(self):
        """The page says that the daemon has gone, and comes back with it."""
        daemon = Daemon("lines=2,names=led:button")
        try:
            browser = self.browser(self.board(daemon.control))
            daemon.stop(signal.SIGKILL)
            eventually("the page says so", lambda: browser.status().startswith("No devices: "))
            eventually("it is disabled", lambda: browser.attribute("button", "aria-disabled") == "true")
            daemon.start()
            eventually("it is back", lambda: browser.status() == "vgpio0: no guest")
            browser.pointer("mouse", "button", "pointerDown", "pointerUp")
            daemon.run("set", "led=1")
            eventually("the lamp is lit", lambda: browser.attribute("led", "aria-label") == "led: on")
        finally:
            daemon.stop()

    def test_board_gone(self):
        """The page says that the board has gone."""
        daemon = self.daemon("lines=1")
        board = subprocess.Popen([VGPIO, "--control", daemon.control, "board"], stdout=subprocess.PIPE, text=True)
        try:
            browser = self.browser(board.stdout.readline().strip())
        finally:
            board.kill()
            board.wait()
            board.stdout.close()
        eventually("the page says so", lambda: browser.status() == "The board has gone; trying again")

    def test_many_lines(self):
        """64 lines that toggle at 1 kHz; prints what the page makes of that."""
        names = [f"line-{line}" for line in range(63)] + ["sw"]
        daemon = self.daemon(f"lines=64,names={':'.join(names)}")
        browser = self.browser(self.board(daemon.control))
        browser.script(MEASURE, ".switch[aria-label='sw']")
        figures = {}
        for what, args in [("idle", None), ("64 lines at 1 kHz", ["toggle", "--interval", "1ms", "--count", "1000000"])]:
            load = args and subprocess.Popen([VGPIO, "--control", daemon.control, *args, *names[:63]])
            try:
                time.sleep(2)
                before = json.loads(daemon.run("stats", "--json"))["vgpio0"]["host_changes"]
                start = time.monotonic()
                browser.script("window.frames = []; window.answers = []")
                for _ in range(30):
                    count = browser.script("return window.answers.length")
                    browser.click("sw")
                    eventually("switched", lambda n=count: browser.script("return window.answers.length") > n)
                frames, answers = browser.script("return [window.frames, window.answers]")
                seconds = time.monotonic() - start
                changes = json.loads(daemon.run("stats", "--json"))["vgpio0"]["host_changes"] - before
            finally:
                if load:
                    load.kill()
                    load.wait()
            gaps = sorted(b - a for a, b in zip(frames, frames[1:]))
            answers.sort()
            late = sum(round(gap / (1000 / 60)) - 1 for gap in gaps if gap > 25)
            figures[what] = (answers[len(answers) // 2], len(gaps) / sum(gaps) * 1000)
            late = f"{late} of {len(gaps) + late} dropped, the longest took {gaps[-1]:.0f} ms"
            said = (f"# {what}: {changes / seconds:.0f} changes/s; click to change {figures[what][0]:.0f} ms "
                    f"(median of {len(answers)}), {answers[-1]:.0f} ms at most; "
                    f"{figures[what][1]:.0f} frames/s, {late}")  # fmt: skip
            self.addClassCleanup(print, said)
        median, rate = figures["64 lines at 1 kHz"]
        self.assertLess(median, 1000)
        self.assertGreater(rate, 10)
        self.assertEqual(browser.messages(), [])

    def test_screenshot(self):
        """Makes the picture for the documentation, with what people have on a board."""
        segments = ":".join(f"digit0-{it}" for it in "abcdefg")
        daemon = self.daemon(f"lines=7,label=display,names={segments},values=1101101",
                             "lines=6,label=front-panel,names=led-power:led-error:button-start:door:switch-mode:relay")  # fmt: skip
        (TOP / "board.toml").write_text((Path(__file__).parent / "board.toml").read_text())
        browser = self.browser(self.board(daemon.control, TOP / "board.toml"))
        clock = subprocess.Popen([VGPIO, "--control", daemon.control, "toggle", "-i", "40ms", "-c", "5000", "relay"])
        daemon.run("set", "led-power=1", "switch-mode=1")
        for turn in range(15):
            daemon.run("set", f"led-error={turn % 2}", f"door={turn // 2 % 2}")
            if turn == 12:
                browser.pointer("mouse", "Start", "pointerDown")
            time.sleep(0.3)
        browser.screenshot(TOP / "board.png")
        clock.kill()
        clock.wait()
        self.assertLess((TOP / "board.png").stat().st_size, 100_000)
        self.assertEqual(browser.messages(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
