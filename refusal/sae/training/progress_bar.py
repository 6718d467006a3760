"""How far a training is, on a terminal: a bar with rows a second and the time that is left."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from refusal.progress import BAR_AFTER_SECONDS

UPDATE_SECONDS = 0.25


class ProgressBar(pl.Callback):
    """Shows the bar once a training has taken two seconds.

    Args:
        batch_size: Rows of a batch, over all processes together.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[speed]}"))
        console = Console(stderr=True)
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, speed="")
        self._start, self._batches = time.monotonic(), 0
        self._next = self._start + BAR_AFTER_SECONDS

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show how far it is, now and then."""
        self._batches += 1
        now = time.monotonic()
        if trainer.is_global_zero and now >= self._next:
            self._next = now + UPDATE_SECONDS
            speed = self._batches * self._batch_size / (now - self._start)
            self._bar.update(self._task, completed=trainer.global_step, speed=f"{speed:,.0f} rows/s")
            self._bar.start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the bar away."""
        if hasattr(self, "_bar"):
            self._bar.stop()
