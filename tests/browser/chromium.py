"""Pages in a real browser: what they ask for, what the browser complains of, and how wide they become.

One start of headless Chromium opens all pages at all widths in frames (a window is never narrower than 500 px), served
by a server of this process; no other name resolves. Chromium's own list of resources says what each page asked for,
from anywhere, whether it came or not.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape, unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRAMES = "frames.html"
MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    page.querySelectorAll("details").forEach((details) => { details.open = true; });
    return {
      path: frame.getAttribute("src"),
      width: frame.clientWidth,
      content: page.documentElement.scrollWidth,
      title: page.title,
      asked: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""


@dataclass(frozen=True)
class Frame:
    """One page at one width, with its details open."""

    path: str
    width: int
    content: int
    """How wide the page became, px; more than ``width`` scrolls sideways."""
    title: str
    asked: Sequence[str]
    """Addresses of all that the page asked for besides itself."""


@dataclass(frozen=True)
class Visit:
    """What happened while the pages were open."""

    frames: Sequence[Frame]
    complaints: Sequence[str]
    """Lines of the console."""


def visit(folder: Path, pages: Sequence[str], widths: Sequence[int], profile: Path) -> Visit:
    """Open each page (a path under ``folder``) at each width; ``profile`` is a folder for the browser itself."""
    frames = "".join(
        f'<iframe src="{escape(page)}" style="width:{width}px;height:900px;border:0"></iframe>'
        for page in pages
        for width in widths
    )
    start = f'<link rel="icon" href="data:,"><body>{frames}<pre id="found"></pre><script>{MEASURE}</script></body>'
    (folder / FRAMES).write_text(f"<!doctype html><title>frames</title>{start}", encoding="utf-8")
    with _serving(folder) as port:
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--enable-logging=stderr", f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"http://127.0.0.1:{port}/{FRAMES}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Visit([Frame(**frame) for frame in json.loads(unescape(found[1]))], complaints)


@contextmanager
def _serving(folder: Path) -> Iterator[int]:
    """Serve the folder on a free port of this machine, in silence."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
