"""Lightning's Trainer around a training: its options, its checkpoints, what it prints, and its errors in one line."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessRaisedException

from refusal import InputError
from refusal.activations.datamodule import ActivationDataModule
from refusal.progress import say
from refusal.sae.training.checkpoints import AtomicFiles, Checkpoints, find
from refusal.sae.training.progress_bar import ProgressBar
from refusal.sae.training.side_by_side import SideBySide, is_continued, log_points

EXPECTED_WARNINGS = (
    ".*passed in a .val_dataloader. but have no .validation_step",  # see ``fit``
    ".*isinstance.treespec, LeafSpec.. is deprecated",  # within Lightning
    ".*GPU available but not used",  # trainer=cpu
    ".*your dataloader is not resumable",  # the data module is
    ".*Previous log files in this directory will be deleted",  # they are written again
)
QUIETER = {
    "pytorch_lightning.utilities.rank_zero": logging.WARNING,
    "lightning.pytorch.utilities.rank_zero": logging.WARNING,
    "lightning_fabric.utilities.distributed": logging.WARNING,
    "torch.multiprocessing.spawn": logging.ERROR,  # that it ends the others where one process has failed
}
OURS = {  # what Lightning would do, and is done here
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}


def check_trainer(options: Mapping[str, Any]) -> None:
    """Find out whether Lightning can train with these options; see ``train_saes``.

    Raises:
        InputError: It cannot.
    """
    with quiet_lightning():
        _trainer({name: value for name, value in options.items() if name != "checkpoint_minutes"} | OURS)


def fit(
    training: SideBySide,
    rows: ActivationDataModule,
    n_steps: int,
    options: Mapping[str, Any],
    logger: Logger | None,
    checkpoints: Path,
    identity: str,
) -> None:
    """Run a training to its end, from its checkpoint if there is one.

    Several processes are started for this alone (``strategy=ddp_spawn``): they share the rows of each batch, the first
    one writes the checkpoints, and its weights and histories come back to this process, which then logs the curves.

    Args:
        training: What is trained.
        rows: The batches.
        n_steps: Number of steps of the optimiser.
        options: See ``train_saes``.
        logger: Where to log the curves.
        checkpoints: Folder of the checkpoint.
        identity: Fingerprint of what the training follows from.

    Raises:
        InputError: The training diverged, or the options do not go together.
        KeyboardInterrupt: It was interrupted.
    """
    options = dict(options)
    has_bar = options.pop("enable_progress_bar", False) and sys.stderr.isatty()
    keeper = Checkpoints(checkpoints, options.pop("checkpoint_minutes", math.inf), identity)
    shown = [ProgressBar(training.recipe.batch_size)] if has_bar else []
    settings = {
        "profiler": _Untimed(),
        **options,
        **OURS,
        "callbacks": [*options.get("callbacks", ()), keeper, *shown],
        "plugins": [AtomicFiles()],
        "max_steps": n_steps,
        "log_every_n_steps": n_steps,  # ``SideBySide`` decides itself what it logs
        "limit_val_batches": 0,  # held-out quality is measured once, on more rows
    }
    place = find(checkpoints, identity)
    if place is not None:
        say("sae", "resumed", f"{place.path} at step {place.step} of {n_steps}")
    with quiet_lightning():
        trainer = _trainer(settings)
        is_alone = trainer.world_size == 1
        if not is_alone:
            trainer.callbacks.append(_QuietToo())  # type: ignore[attr-defined]
        elif logger is not None:
            trainer.loggers = [logger]
        with _one_line():
            trainer.fit(training, datamodule=rows, ckpt_path=None if place is None else str(place.path))
    if logger is not None and not is_alone:
        log_points(logger, training.histories, place.step if place is not None and is_continued(logger) else 0)


def _trainer(settings: Mapping[str, Any]) -> pl.Trainer:
    try:
        return pl.Trainer(**settings)
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(f"Lightning cannot train with these trainer options: {cause}") from error


@contextmanager
def _one_line() -> Iterator[None]:
    """Raise what went wrong in a process of its own as it was, and what Lightning makes of an interrupt as one."""
    try:
        yield
    except ProcessRaisedException as error:
        _, is_ours, message = str(error).rpartition(f"{InputError.__module__}.{InputError.__name__}: ")
        raise InputError(message.strip()) if is_ours else error from error
    except SystemExit as stop:
        raise KeyboardInterrupt from stop


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's notes about devices, tips and workers; its warnings of other kinds and errors still show."""
    levels = {name: logging.getLogger(name).level for name in QUIETER}
    try:
        with warnings.catch_warnings():
            _hush()
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _hush() -> None:
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


class _Untimed(PassThroughProfiler):
    """Times nothing, in a context that is made once: Lightning enters one some 40 times a batch."""

    _context = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        """Return the context."""
        return self._context


class _QuietToo(pl.Callback):
    """Makes the processes that Lightning starts as quiet as this one, when it is unpickled there."""

    def __reduce__(self) -> tuple[Callable[[], pl.Callback], tuple[()]]:
        return _quiet_too, ()


def _quiet_too() -> pl.Callback:
    _hush()
    return _QuietToo()
