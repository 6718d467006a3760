"""Commands in processes of their own that have what is heavy imported already: they are forked from one that has.

Importing torch and Lightning takes four seconds, most of what a small command takes. The process that they are forked
from (``multiprocessing``'s fork server) imports nothing of this project: each command still begins with nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

HEAVY = ["numba", "pandas", "matplotlib.pyplot", "transformers", "transformers.modeling_utils", "pytorch_lightning"]
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
STREAMS = ("out", "err")


class Started:
    """A command that has been started; of ``subprocess.Popen`` it has what is used here."""

    def __init__(self, process: Any, streams: tempfile.TemporaryDirectory[str]) -> None:
        self._process, self._streams = process, streams
        self.pid: int = process.pid

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """Send it SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float = 500) -> int:
        """Wait for its end; return its exit status, that of a signal negative."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it has not ended in {timeout} s"
        return self._process.exitcode

    @property
    def said(self) -> tuple[str, str]:
        """What it has written to its standard output, and to its standard error."""
        out, err = (Path(self._streams.name, name).read_text(encoding="utf-8") for name in STREAMS)
        return out, err


def start(folder: Path, script: Path, arguments: Sequence[str], before: Callable[[], object] | None) -> Started:
    """Run a script in a folder, after calling ``before`` there."""
    streams = tempfile.TemporaryDirectory()
    for name in STREAMS:
        Path(streams.name, name).touch()
    process = _server().Process(target=_run, args=(folder, script, arguments, streams.name, before))
    process.start()
    return Started(process, streams)


@cache
def _server() -> Any:
    """Start the process with the imports, which ends with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    with _environment():
        forkserver.ensure_running()
    return context


@contextmanager
def _environment() -> Any:
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(
    folder: Path, script: Path, arguments: Sequence[str], streams: str, before: Callable[[], object] | None
) -> None:
    for descriptor, name in enumerate(STREAMS, start=1):
        os.dup2(os.open(Path(streams, name), os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(folder)
    sys.argv = [str(script), *arguments]
    if before is not None:
        before()
    runpy.run_path(str(script), run_name="__main__")
