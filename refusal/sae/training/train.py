"""Train autoencoders on the rows of their sites, measure them on held-out prompts, and write them down.

1. Units from a sample of the training rows: their middle and their variance.
2. Lightning runs min(epochs * rows, max_rows) rows through all of them side by side (``side_by_side``, ``fit``): the
   store is read once, whatever their number, and each comes out as if it had trained alone.
3. Quality on the held-out prompts' rows (``heldout``).
4. Of each: ``sae.safetensors``, ``cfg.json``, ``history.json`` and ``training_plots/``.

The rows come from the folds ``calibration`` and ``train``; no label reaches the training.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger

from refusal import InputError
from refusal.activations.datamodule import ActivationDataModule
from refusal.activations.samplers import Sampler
from refusal.activations.source import sections_of
from refusal.activations.store import ActivationStore
from refusal.activations.stream import TRAINING_FOLDS
from refusal.artifacts import fingerprint, write_json
from refusal.models.sites import Site
from refusal.sae.build import build
from refusal.sae.figures.training import training_figure
from refusal.sae.files import save_sae
from refusal.sae.kernels import cpu
from refusal.sae.quality.heldout import measure
from refusal.sae.recipe import Recipe
from refusal.sae.training.fit import fit
from refusal.sae.training.side_by_side import Member, SideBySide
from refusal.style import save_png

UNIT_ROWS = 4096  # the units are taken from about so many rows
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Job:
    """An autoencoder to be trained."""

    site: Site | str
    seed: int
    """What its first weights follow from."""
    folder: Path
    """Where to write it: the temporary folder of ``artifacts.publish``."""
    name: str
    """What logs and messages call it; no two jobs share it."""
    cfg: Mapping[str, Any] = field(default_factory=dict)
    """What else its ``cfg.json`` should say, such as fingerprints."""


def train_saes(
    store: ActivationStore,
    jobs: Sequence[Job],
    recipe: Recipe,
    *,
    model: str,
    sampler: Sampler,
    order_seed: int,
    last_fraction: float,
    kinds: Collection[str],
    trainer: Mapping[str, Any],
    logger: Logger | None = None,
    checkpoints: Path,
) -> list[dict[str, Any]]:
    """Train autoencoders on the same rows; write each, its history and its plots into its folder.

    Args:
        store: The activations.
        jobs: What to train: at one or several sites, from one or several first weights.
        recipe: What to build, and how to train it.
        model: Name of the model, for ``cfg.json``.
        sampler: How often a row comes from each stratum.
        order_seed: What the order of the rows follows from.
        last_fraction: Share of rows from the last prompt position.
        kinds: Kinds of the other rows, for training and for the held-out figures.
        trainer: Keyword arguments of Lightning's Trainer (accelerator, devices, precision, ...), and
            ``checkpoint_minutes``: how often a checkpoint is written; never, if it is left out.
        logger: Where to log the training curves and the held-out figures, as ``NAME/train/loss`` and so on.
        checkpoints: Folder of the checkpoint, from which a killed training goes on; the caller removes it when the
            results are safe.

    Returns:
        Of each job the held-out figures ``{"all": {...}, "last": {...}, ...}`` (see ``heldout``), ``steps`` and
        ``rows``.

    Raises:
        InputError: The recipe does not fit the data, a training diverged, the checkpoint is of another training, or
            the disk refuses.
    """
    sections = sections_of(store, kinds)
    gathered = int(trainer.get("accumulate_grad_batches", 1))
    n_batches = gathered * n_steps(recipe, _n_rows(store, sampler, sections), gathered)
    sites = list(dict.fromkeys(str(job.site) for job in jobs))
    rows = ActivationDataModule(
        store,
        sites,
        sampler,
        batch_size=recipe.batch_size,
        n_steps=n_batches,
        seed=order_seed,
        last_fraction=last_fraction,
        kinds=kinds,
    )
    members = [
        Member(job.name, build(replace(recipe, seed=job.seed), store.d_model), sites.index(str(job.site)), [])
        for job in jobs
    ]
    sample = _sample(rows, recipe.batch_size)
    for member in members:
        member.sae.fit_units(sample[member.place])
    training = SideBySide(members, recipe)
    made_from = [asdict(recipe), order_seed, n_batches, last_fraction, sorted(kinds)]
    identity = fingerprint({"jobs": [[str(job.site), job.seed] for job in jobs], "made_from": made_from})
    try:
        fit(training, rows, n_batches // gathered, trainer, logger, checkpoints, identity)
    finally:
        cpu.release()
    done = {"steps": n_batches // gathered, "rows": n_batches * recipe.batch_size}
    return [
        {**_finish(member, store, job, recipe, model, sections, logger, done["steps"]), **done}
        for member, job in zip(members, jobs, strict=True)
    ]


def _finish(
    member: Member,
    store: ActivationStore,
    job: Job,
    recipe: Recipe,
    model: str,
    sections: Collection[str],
    logger: Logger | None,
    steps: int,
) -> dict[str, Any]:
    """Measure a trained autoencoder, and write it down."""
    sae = member.sae
    if not all(bool(value.isfinite().all()) for value in sae.parameters()):
        raise InputError(f"the training of {job.name} diverged at step {steps} with sae.lr={recipe.lr}; lower it")
    heldout = measure(sae, store, job.site, sections)
    if logger is not None:
        log_heldout(logger, job.name, heldout, steps)
    training = asdict(replace(recipe, seed=job.seed))
    save_sae(job.folder, sae, model=model, site=job.site, cfg={**job.cfg, "training": training})
    history = {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "site": str(job.site),
        "hidden_dim": sae.d_sae,
        "k": sae.k,
        "seed": job.seed,
        "part": job.cfg.get("part"),
        "train": member.history,
        "heldout": heldout,
    }
    write_json(job.folder / "history.json", history)
    save_png(training_figure(history), job.folder / "training_plots" / "training.png")
    return heldout


def n_steps(recipe: Recipe, n_rows: int, gathered: int = 1) -> int:
    """Return how many steps a training takes that has ``n_rows`` rows an epoch, of ``gathered`` batches each.

    Raises:
        InputError: The batch size is not positive.
    """
    if recipe.batch_size < 1:
        raise InputError(f"sae.batch_size={recipe.batch_size} is not a positive number of rows")
    return max(1, math.ceil(min(recipe.epochs * n_rows, recipe.max_rows) / (recipe.batch_size * gathered)))


def _n_rows(store: ActivationStore, sampler: Sampler, sections: Collection[str]) -> int:
    """Return the number of training rows in the strata that the sampler draws from."""
    strata = store.strata(TRAINING_FOLDS, sections)
    return sum(stratum.rows for stratum, weight in zip(strata, sampler(strata), strict=True) if weight > 0)


def _sample(rows: ActivationDataModule, batch_size: int) -> torch.Tensor:
    """Return the first training rows, and put the rows back to their start: [n_sites, about 4,096, d_model]."""
    start = rows.state_dict()
    sample = torch.cat(list(islice(rows.stream, max(1, UNIT_ROWS // batch_size))), 1)
    rows.load_state_dict(start)
    return sample


def log_heldout(logger: Logger, name: str, heldout: Mapping[str, Any], steps: int) -> None:
    """Log the held-out figures: ``NAME/heldout/fvu``, ``NAME/heldout_last/fvu``."""
    figures = {
        f"{name}/{prefix}/{figure}": value
        for part, prefix in (("all", "heldout"), ("last", "heldout_last"))
        for figure, value in heldout[part].items()
        if value is not None
    }
    logger.log_metrics(figures, steps)
