"""OR-Bench from the Hugging Face hub. The hub cannot be had here: a server of this machine stands in for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from refusal import InputError
from refusal.prompts.hub import find
from refusal.prompts.orbench import FILES, REPO, read_orbench

NAMES = list(FILES.values())
CONTENT = b"prompt,category\nWhy?,hate\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def fill(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(content)
    return folder


# --- folders ------------------------------------------------------------------------------------------------


def test_the_folder_a_copy_of_the_cache_and_its_snapshots_are_all_found(tmp_path: Path) -> None:
    cache = tmp_path / "datasets--bench-llm--or-bench"
    snapshot = fill(cache / "snapshots" / COMMIT)
    assert {find(folder, NAMES) for folder in (snapshot, snapshot.parent, cache)} == {snapshot}
    assert len(read_orbench(cache)) == 3


def test_of_several_snapshots_the_newest_is_taken_or_one_has_to_be_named(tmp_path: Path) -> None:
    for commit in (COMMIT, OTHER):
        fill(tmp_path / "snapshots" / commit)
    with pytest.raises(InputError) as caught:
        find(tmp_path, NAMES)
    assert str(caught.value) == f"{tmp_path / 'snapshots'} holds {COMMIT}, {OTHER}: give the path of one of them"
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text(OTHER)
    assert find(tmp_path, NAMES) == tmp_path / "snapshots" / OTHER


def test_a_cache_without_the_files_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "snapshots" / COMMIT).mkdir(parents=True)
    with pytest.raises(InputError, match="the folder has to hold or-bench-80k"):
        read_orbench(tmp_path)


# --- downloads ----------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for the files of one data set at one commit."""

    def do_HEAD(self) -> None:
        *_, revision, name = self.path.split("/")
        if self.path.startswith(f"/datasets/{REPO}/resolve/") and revision == "gated":
            self._answer(403, {"X-Error-Code": "GatedRepo"})
        elif self.path.startswith(f"/datasets/{REPO}/resolve/") and revision not in ("main", COMMIT):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif name in NAMES:
            self._answer(200, {"ETag": f'"{hashlib.sha256(CONTENT).hexdigest()}"', "X-Repo-Commit": COMMIT}, CONTENT)
        else:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})

    do_GET = do_HEAD

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def download(home: Path, endpoint: str, revision: str | None = None, **environment: str) -> str:
    """Read OR-Bench in a process of its own, whose hub is at the endpoint; return what it prints."""
    code = (
        "from refusal import InputError\n"
        "from refusal.prompts.orbench import read_orbench\n"
        f"try: print(*[(p.text, p.split) for p in read_orbench(None, download=True, revision={revision!r})])\n"
        "except InputError as error: print(error)\n"
    )
    own = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "0", **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def test_the_files_are_downloaded_once_and_then_found(tmp_path: Path, hub: str) -> None:
    rows = "('Why?', 'safe') ('Why?', 'hard') ('Why?', 'toxic')"
    assert download(tmp_path, hub) == rows
    cache = tmp_path / "hub" / "datasets--bench-llm--or-bench"
    assert sorted(path.name for path in find(cache, NAMES).iterdir()) == sorted(NAMES)
    assert len(read_orbench(cache)) == 3  # a copy of the cache is a folder for data.dir
    assert download(tmp_path, hub, HF_HUB_OFFLINE="1") == rows
    assert download(tmp_path, hub, COMMIT) == rows


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("gated", f"{REPO} is gated: accept its terms on its hub page, then `hf auth login`"),
        ("v9", f"{REPO} at v9 on the hub lacks one of {', '.join(NAMES)}, or there is no such revision"),
    ],
)
def test_what_the_hub_refuses_is_one_line(tmp_path: Path, hub: str, revision: str, expected: str) -> None:
    assert download(tmp_path, hub, revision) == expected


def test_without_a_hub_a_folder_can_be_given(tmp_path: Path, hub: str) -> None:
    line = download(tmp_path, hub, HF_HUB_OFFLINE="1")
    assert line == f"{REPO} is not in the hub's cache, and the hub cannot be reached; data.dir=DIR reads a folder"
