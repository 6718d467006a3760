"""Where a training is up to, on disk, so that one that was killed goes on with the very next step.

A checkpoint is a file that Lightning fills with weights, optimiser, learning rate, histories, and the place in the
rows; it takes the place of the one before it by a rename, so that a kill while it is written loses nothing. It says
whose it is (``identity``): only the same training goes on from it.
"""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from refusal import InputError
from refusal.progress import warn

NAME = "last.ckpt"
LOOK_EVERY = 10  # steps: with several processes, to agree on the time costs a message
LEAST_PAUSE = 50.0  # as long as the last checkpoint took to write: at most 2 % of a training's time


class Place(NamedTuple):
    """Where a training goes on."""

    path: Path
    """The checkpoint."""
    step: int
    """Steps that are done."""


class Checkpoints(pl.Callback):
    """Writes a checkpoint every so many minutes.

    Args:
        folder: Where.
        minutes: How often; 0 is every ten steps or so.
        identity: Fingerprint of what the training follows from.
    """

    def __init__(self, folder: Path, minutes: float, identity: str) -> None:
        self._path, self._seconds, self._identity = folder / NAME, 60 * minutes, identity
        self._has_failed = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to wait."""
        self._next = time.monotonic() + self._seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write, if it is time and no gradients are being gathered."""
        step = trainer.global_step
        if step % LOOK_EVERY or (batch_idx + 1) % trainer.accumulate_grad_batches or step == trainer.max_steps:
            return
        if trainer.strategy.broadcast(time.monotonic() >= self._next):
            start = time.monotonic()
            self._write(trainer)
            end = time.monotonic()
            self._next = end + max(self._seconds, LEAST_PAUSE * (end - start) if self._seconds else 0.0)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say whose it is."""
        checkpoint["identity"] = self._identity

    def _write(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint; a disk that refuses does not end the training."""
        try:
            trainer.save_checkpoint(self._path)
        except OSError as error:
            if not self._has_failed:
                warn(f"cannot write {self._path}: {error.strerror or error}; the training goes on without it")
            self._has_failed = True


class AtomicFiles(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, has the disk keep it, and renames it; unpickles nothing but tensors."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: The disk refuses.
        """
        path = Path(path)
        temporary = path.with_name(path.name + ".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except RuntimeError as error:  # what torch makes of the disk's refusal
            raise (error.__context__ if isinstance(error.__context__, OSError) else OSError(str(error))) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint."""
        return torch.load(path, map_location=map_location, weights_only=True)


def find(folder: Path, identity: str) -> Place | None:
    """Return where to go on, or None where a training begins; a damaged checkpoint is mentioned and not used.

    Raises:
        InputError: The checkpoint is of another training.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                raise ValueError("a checksum is wrong")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found, step = checkpoint["identity"], int(checkpoint["global_step"])
    except Exception as error:  # noqa: BLE001  damage shows in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        warn(f"{path} is damaged ({reason}); the training begins anew")
        return None
    if found != identity:
        raise InputError(f"{path} is of another training ({found}, not {identity}); move or delete {folder}")
    return Place(path, step)
