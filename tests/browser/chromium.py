"""A real browser that a test drives: headless Chromium over its DevTools protocol, by a pipe, with nothing installed.

    with Browser(profile) as browser:
        page = browser.open(path, width=360)
        page.run("document.title")

Pages are opened as a reader does, from the disk. No name resolves; what a page asks for, whether or not it comes, is in
``asked``, and what the console says, or what is thrown, in ``complaints``.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READ, WRITE = 3, 4  # where Chromium expects the two ends of the pipe
SECONDS = 30
KEYS = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "End": 35, "Home": 36}


class Browser:
    """One Chromium; ``profile`` is a folder for what it keeps."""

    def __init__(self, profile: Path) -> None:
        to_browser, from_browser = os.pipe(), os.pipe()
        # Above the two numbers that the child needs, so that neither is overwritten while they are moved there.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser[0], from_browser[1])]
        os.close(to_browser[0])
        os.close(from_browser[1])
        self._write, self._read = to_browser[1], from_browser[0]

        def take_ends() -> None:
            for end, number in zip(ends, (READ, WRITE), strict=True):
                os.dup2(end, number, inheritable=True)

        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "--hide-scrollbars", "--no-first-run"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(READ, WRITE), preexec_fn=take_ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end in ends:
            os.close(end)
        self._rest, self._number = b"", 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False, at: str = "") -> Page:
        """Open a file and return when it has loaded; ``at`` is what follows the # of its address."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.set(width=width, height=height, dark=dark)
        page.address = path.resolve().as_uri()
        page.call("Page.navigate", url=page.address + (f"#{at}" if at else ""))
        while not page.loaded:
            self._receive(time.monotonic() + SECONDS)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it go to their pages."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise RuntimeError("the browser does not answer")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has gone")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        content = json.loads(message)
        if content.get("sessionId") in self._pages and "method" in content:
            self._pages[content["sessionId"]].notice(content["method"], content["params"])
        return content


class Page:
    """One page, and what was noticed of it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.address = ""
        self.loaded = False
        self.asked: list[str] = []
        """Addresses of all that the page asked for besides itself."""
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def set(self, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Bring the page to the front (others draw nothing); set its size, px, and the theme that its owner prefers."""
        self.call("Page.bringToFront")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=theme)

    def notice(self, event: str, what: Mapping[str, Any]) -> None:
        """Keep what an event says."""
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Network.requestWillBeSent":
            url = what["request"]["url"]
            if url.split("#")[0] != self.address and not url.startswith(("data:", "blob:")):
                self.asked.append(url)
        elif event == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Log.entryAdded":
            self.complaints.append(what["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([argument.get("value") for argument in what["args"]]))

    def run(self, script: str) -> Any:
        """Return what an expression is; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"].get("description", script))
        return done["result"].get("value")

    def settle(self) -> None:
        """Wait until what was asked for has been drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def wait_for(self, script: str, seconds: float = 5.0) -> Any:
        """Return what an expression is as soon as it is something, or after some seconds."""
        deadline = time.monotonic() + seconds
        while not (found := self.run(script)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def middle(self, element: str) -> tuple[float, float]:
        """Scroll an element (an expression) into sight; return its middle, px from the window's corner."""
        box = self.run(
            f"(() => {{ const element = {element}; element.scrollIntoView({{block: 'center'}});"
            " const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return box[0], box[1]

    def hover(self, x: float, y: float) -> None:
        """Move the mouse there."""
        for step in (-2, -1, 0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)
        self.settle()

    def click(self, x: float, y: float) -> None:
        """Click there."""
        self.hover(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key: str) -> None:
        """Press a key, on whatever has the focus."""
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)
        self.settle()

    def overflow(self) -> int:
        """Return by how much the page, with everything open, is wider than its window, px."""
        self.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        self.settle()
        return self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def picture(self, path: Path, element: str | None = None) -> Path:
        """Write a picture (PNG) of the window, or of an element (an expression)."""
        clip = {}
        if element:
            box = self.run(
                f"(() => {{ const b = {element}.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }})()"
            )
            y = box[1] + self.run("scrollY")
            clip = {"clip": {"x": box[0], "y": y, "width": box[2], "height": box[3], "scale": 1}}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=bool(element), **clip)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
