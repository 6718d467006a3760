"""Collect one study many ways: at one go, killed (SIGKILL) at many moments, and by several processes.

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
from refusal.activations import plan, space
from refusal.activations.collect import collect
from refusal.activations.portion import parse_portion
from refusal.activations.recipe import Recipe
from refusal.models.sites import parse_site
from tests.activations.conftest import planted_study

SITES = tuple(parse_site(name) for name in ("attention_0", "mlp_2", "residuals_2"))
# 18 shards are written and the 6 of the calibration fold flushed once more when they are scored; each number is
# how many flushes a process lives to begin, so that it dies with a whole file under a temporary name
DEATHS = (1, 4, 3, 2, 1, 5, 9)
ALONE = None

Run = Callable[[str, "str | None"], object]


def main(folder: Path) -> None:
    """Make a store for each way in the folder."""
    torch.set_num_threads(1)
    plan.WAVE_PROMPTS = 20
    chat, prompts = planted_study(folder / "model")

    def run(name: str, part: str | None) -> None:
        portion = None if part is None else parse_portion(part)
        recipe = Recipe(SITES, response_tokens=4)
        collect(chat, prompts, recipe, folder / name, portion=portion, card={"fingerprint": "f"})

    run("whole", ALONE)
    killed(folder, run)
    together(run, "shared_by_four", ALONE, ALONE, ALONE, ALONE)
    together(run, "four_parts", "3/4", "1/4", "4/4", "2/4")
    together(run, "part_and_whole", "2/3", ALONE)
    parts_in_turn(folder, run)
    part_killed(folder, run)


def killed(folder: Path, run: Run) -> None:
    """Die at many moments, one after the other, and at the very last."""
    for flushes in DEATHS:
        assert _child(lambda n=flushes: _die_at_flush(n, lambda: run("killed", ALONE))) == -signal.SIGKILL
    assert _child(lambda: _die_at_manifest(lambda: run("killed", ALONE))) == -signal.SIGKILL
    assert not (folder / "killed" / "manifest.json").exists()
    run("killed", ALONE)


def together(run: Run, name: str, *parts: str | None) -> None:
    """Several processes at once."""
    others = [_fork(lambda part=part: run(name, part)) for part in parts]
    assert [os.waitpid(pid, 0)[1] for pid in others] == [0] * len(parts)


def parts_in_turn(folder: Path, run: Run) -> None:
    """Parts that never meet; only the last finds all shards there."""
    for part in ("4/4", "2/4", "1/4", "3/4"):
        assert not (folder / "parts_in_turn" / "manifest.json").exists()
        run("parts_in_turn", part)


def part_killed(folder: Path, run: Run) -> None:
    """One part dies while others work on; they do not wait for it, and it goes on where it was."""
    dying = _fork(lambda: _die_at_flush(5, lambda: run("part_killed", "1/3")))
    together(run, "part_killed", "2/3", "3/3")
    assert os.waitstatus_to_exitcode(os.waitpid(dying, 0)[1]) == -signal.SIGKILL
    assert not (folder / "part_killed" / "manifest.json").exists()
    run("part_killed", "1/3")


def _fork(job: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  a child must not go on with its parent's work
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def _child(job: Callable[[], object]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(_fork(job), 0)[1])


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_flush(n: int, job: Callable[[], object]) -> None:
    left = [n]

    def flush(path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            _kill()

    space.flush = flush
    job()


def _die_at_manifest(job: Callable[[], object]) -> None:
    def write_json(path: Path, content: Any) -> None:
        _kill()

    collect_module.write_json = write_json
    job()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
