"""Train two autoencoders, every tenth step saved, in processes that are killed (SIGKILL) until one lives to the end.

Run as ``python -m tests.sae.one_training STORE FOLDER STEPS...``: how many each begins before it dies. How they end is
printed. Children are forked, so that a moment of death costs no new import.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from refusal.activations.store import ActivationStore
from refusal.artifacts import publish
from refusal.sae.recipe import Recipe
from refusal.sae.training.train import Job
from tests.sae.conftest import OTHER_SITE, RECIPE, SITE
from tests.sae.training.test_train import TRAINER, train_all

RECIPE_OF_100 = replace(RECIPE, epochs=100 * 64 / 960, dead_after_rows=500)


class Tells(pl.Callback):
    """Writes a byte to a pipe when a step begins."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        os.write(self.pipe, b".")


def train_two(
    store: ActivationStore,
    folder: Path,
    *callbacks: pl.Callback,
    recipe: Recipe = RECIPE_OF_100,
    logger: Logger | None = None,
    **trainer: Any,
) -> None:
    """Train them and publish them in the folder; checkpoints go into a hidden one."""
    options = {**TRAINER, "checkpoint_minutes": 0.0, "callbacks": callbacks, **trainer}
    with publish(folder / "saes", {}) as home:
        jobs = [Job(site, 0, home / site, site) for site in (SITE, OTHER_SITE)]
        train_all(store, recipe, jobs, checkpoints=folder / ".checkpoints", trainer=options, logger=logger)


def train_and_die(store: ActivationStore, folder: Path, steps: int | None) -> int:
    """Train in a forked process, and kill it some moment after it began so many steps; return its exit status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        train_two(store, folder, Tells(writing))
        os._exit(0)
    if steps is not None:
        for _ in range(steps):
            os.read(reading, 1)
        time.sleep(random.uniform(0, 0.02))  # a step takes some 3 ms, and to save it as long again
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    store, folder = ActivationStore(Path(sys.argv[1])), Path(sys.argv[2])
    for steps in [*map(int, sys.argv[3:]), None]:
        print(train_and_die(store, folder, steps), flush=True)
