"""Collect one study four ways: at one go, killed (SIGKILL) at many moments, and by two processes at once.

Run as ``python -m tests.activations.interrupted FOLDER``; the test compares the stores that this leaves. Children are
forked before torch has any threads, so that each moment of death costs no new import.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from refusal.activations import collect as collect_module
from refusal.activations import labels, plan, shard
from refusal.activations.collect import collect
from refusal.activations.recipe import Recipe
from refusal.models.sites import parse_site
from tests.activations.conftest import planted_study

SITES = tuple(parse_site(name) for name in ("attention_0", "mlp_2", "residuals_2"))
# 18 shards are written and the 6 of the calibration fold flushed once more when they are scored; each number is
# how many flushes a process lives to begin, so that it dies with a whole file under a temporary name
DEATHS = (1, 4, 3, 2, 1, 5, 9)


def main(folder: Path) -> None:
    """Make the stores ``whole``, ``killed`` and ``shared`` in the folder."""
    torch.set_num_threads(1)
    plan.WAVE_PROMPTS = 20
    chat, prompts = planted_study(folder / "model")

    def run(name: str) -> None:
        collect(chat, prompts, Recipe(SITES, response_tokens=4), folder / name, card={"fingerprint": "f"})

    run("whole")
    for flushes in DEATHS:
        assert _child(lambda n=flushes: _die_at_flush(n, lambda: run("killed"))) == -signal.SIGKILL
    assert _child(lambda: _die_at_manifest(lambda: run("killed"))) == -signal.SIGKILL
    assert not (folder / "killed" / "manifest.json").exists()
    run("killed")
    others = [_fork(lambda: run("shared")) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in others] == [0, 0]


def _fork(job: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  a child must not go on with its parent's work
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def _child(job: Callable[[], None]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(_fork(job), 0)[1])


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_flush(n: int, job: Callable[[], None]) -> None:
    left = [n]

    def flush(path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            _kill()

    shard.flush = flush
    labels.flush = flush
    job()


def _die_at_manifest(job: Callable[[], None]) -> None:
    def write_json(path: Path, content: Any) -> None:
        _kill()

    collect_module.write_json = write_json
    job()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
