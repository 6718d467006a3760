"""Train an autoencoder on one site's rows, measure it on held-out prompts, and write it down.

1. Units from a sample of the training rows: their mean and their variance.
2. Lightning runs min(epochs * rows, max_rows) rows through ``training.SideBySide``.
3. Quality on the held-out prompts' rows (``heldout``).
4. ``sae.safetensors``, ``cfg.json``, ``history.json`` and ``training_plots/``.

The rows come from the folds ``calibration`` and ``train``; no label reaches the training.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from refusal import InputError
from refusal.activations.datamodule import ActivationDataModule
from refusal.activations.samplers import Sampler
from refusal.activations.source import sections_of
from refusal.activations.store import ActivationStore
from refusal.activations.stream import TRAINING_FOLDS
from refusal.artifacts import write_json
from refusal.models.sites import Site
from refusal.sae.build import build
from refusal.sae.figures import training_figure, write_png
from refusal.sae.files import save_sae
from refusal.sae.heldout import measure
from refusal.sae.recipe import Recipe
from refusal.sae.training import SideBySide

UNIT_ROWS = 4096  # mean and variance are taken from about so many rows
SCHEMA_VERSION = 1
EXPECTED_WARNINGS = (
    ".*does not have many workers",  # the stream reads ahead itself
    ".*IterableDataset. has .__len__. defined",  # one process reads it
    ".*passed in a .val_dataloader. but have no .validation_step",  # see ``_fit``
    ".*isinstance.treespec, LeafSpec.. is deprecated",  # within Lightning
    ".*GPU available but not used",  # trainer=cpu
)


def train_sae(
    store: ActivationStore,
    site: Site | str,
    recipe: Recipe,
    folder: Path,
    *,
    model: str,
    sampler: Sampler,
    last_fraction: float,
    kinds: Collection[str],
    trainer: Mapping[str, Any],
    logger: Logger | None = None,
    cfg: Mapping[str, Any],
) -> dict[str, Any]:
    """Train an autoencoder and write it, its history and its plots into a folder.

    Args:
        store: The activations.
        site: Which of its sites.
        recipe: What to build, and how to train it.
        folder: Where to write: the temporary folder of ``artifacts.publish``.
        model: Name of the model, for ``cfg.json``.
        sampler: How often a row comes from each stratum.
        last_fraction: Share of rows from the last prompt position.
        kinds: Kinds of the other rows, for training and for the held-out figures.
        trainer: Keyword arguments of Lightning's Trainer (accelerator, devices, precision, ...).
        logger: Where to log the training curves and the held-out figures.
        cfg: What else ``cfg.json`` should say, such as fingerprints.

    Returns:
        Held-out figures ``{"all": {...}, "last": {...}, ...}`` (see ``heldout``), ``steps`` and ``rows``.

    Raises:
        InputError: The recipe does not fit the data, the training diverged, or the disk refuses.
    """
    sections = sections_of(store, kinds)
    steps = n_steps(recipe, _n_rows(store, sampler, sections))
    rows = ActivationDataModule(
        store,
        site,
        sampler,
        batch_size=recipe.batch_size,
        n_steps=steps,
        seed=recipe.seed,
        last_fraction=last_fraction,
        kinds=kinds,
    )
    sae = build(recipe, store.d_model)
    sae.fit_units(_sample(rows, recipe.batch_size))
    training = SideBySide([sae], recipe)
    _fit(training, rows, steps, trainer, logger)
    if not all(bool(value.isfinite().all()) for value in sae.parameters()):
        raise InputError(f"the training at {site} diverged with sae.lr={recipe.lr}; lower it")
    heldout = measure(sae, store, site, sections)
    if logger is not None:
        logger.log_metrics(_flat(heldout), steps)
    save_sae(folder, sae, model=model, site=site, cfg={**cfg, "training": asdict(recipe)})
    history = {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "site": str(site),
        "hidden_dim": sae.d_sae,
        "k": sae.k,
        "train": training.histories[0],
        "heldout": heldout,
    }
    write_json(folder / "history.json", history)
    write_png(training_figure(history), folder / "training_plots" / "training.png")
    return {**heldout, "steps": steps, "rows": steps * recipe.batch_size}


def n_steps(recipe: Recipe, n_rows: int) -> int:
    """Return how many batches a training takes that has ``n_rows`` rows an epoch.

    Raises:
        InputError: The batch size is not positive.
    """
    if recipe.batch_size < 1:
        raise InputError(f"sae.batch_size={recipe.batch_size} is not a positive number of rows")
    return max(1, math.ceil(min(recipe.epochs * n_rows, recipe.max_rows) / recipe.batch_size))


def _n_rows(store: ActivationStore, sampler: Sampler, sections: Collection[str]) -> int:
    """Return the number of training rows in the strata that the sampler draws from."""
    strata = store.strata(TRAINING_FOLDS, sections)
    return sum(stratum.rows for stratum, weight in zip(strata, sampler(strata), strict=True) if weight > 0)


def _sample(rows: ActivationDataModule, batch_size: int) -> torch.Tensor:
    """Return the first training rows, and put the rows back to their start: [about 4,096, d_model]."""
    start = rows.state_dict()
    sample = torch.cat(list(islice(rows.stream, max(1, UNIT_ROWS // batch_size))))
    rows.load_state_dict(start)
    return sample


def _fit(
    training: SideBySide,
    rows: ActivationDataModule,
    steps: int,
    options: Mapping[str, Any],
    logger: Logger | None,
) -> None:
    """Run the training; one that diverged or was interrupted is an error, so that nothing of it is kept."""
    settings = {
        **options,
        "enable_progress_bar": bool(options.get("enable_progress_bar")) and sys.stderr.isatty(),
        "max_steps": steps,
        "limit_val_batches": 0,  # held-out quality is measured once, on more rows, by ``measure``
        "logger": logger or False,
        "log_every_n_steps": 1,  # ``SideBySide`` decides itself what it logs
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    with quiet_lightning():
        try:
            trainer = pl.Trainer(**settings)
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            cause = str(error).strip().splitlines()[0]
            raise InputError(f"Lightning cannot train with these trainer options: {cause}") from error
        try:
            trainer.fit(training, datamodule=rows)
        except SystemExit as stop:  # what Lightning makes of an interrupt
            raise KeyboardInterrupt from stop


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's notes about devices, tips and workers; its warnings of other kinds and errors still show."""
    names = ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _flat(heldout: Mapping[str, Any]) -> dict[str, float]:
    """Name the held-out figures for a logger: ``heldout/fvu``, ``heldout_last/fvu``."""
    return {
        f"{prefix}/{name}": value
        for part, prefix in (("all", "heldout"), ("last", "heldout_last"))
        for name, value in heldout[part].items()
        if value is not None
    }
