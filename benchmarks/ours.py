"""This package's training step as Lightning drives it, without Lightning: what the benchmarks time and train."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from torch import Tensor

from refusal.config.options import from_config, register
from refusal.config.schemas import Options, TrainedSae
from refusal.sae.build import build
from refusal.sae.recipe import Recipe
from refusal.sae.sizes import learning_rate
from refusal.sae.training.fit import quiet_lightning
from refusal.sae.training.side_by_side import Member, SideBySide

CONF = Path(__file__).parents[1] / "conf"


def recipe_of(architecture: str, *, d_model: int, d_sae: int, k: int, batch: int, seed: int) -> Recipe:
    """Return what ``sae=ARCHITECTURE`` stands for by default, at these sizes."""
    sae = _options(f"sae={architecture}").sae
    assert isinstance(sae, TrainedSae)
    options = sae.sized(d_model, d_sae)
    plain = {field.name: getattr(sae, field.name) for field in fields(Recipe) if hasattr(sae, field.name)}
    plain["lr"] = learning_rate(d_sae, sae.lr)
    recipe = Recipe(**{**plain, "hidden_dim": d_sae, "batch_size": batch, "seed": seed, "options": options})
    return replace(recipe, options={**options, "k": k}) if "k" in options else recipe


def trainer_options() -> dict[str, Any]:
    """Return Lightning's options that ``trainer=cpu`` stands for by default."""
    return asdict(_options("trainer=cpu").trainer)


def _options(*overrides: str) -> Options:
    register()
    with initialize_config_dir(str(CONF), version_base=None):
        return from_config(compose("train", list(overrides)))


class Training:
    """An autoencoder and all that a step of its training takes.

    Args:
        recipe: How to build and train it.
        sample: Rows that set its units, [n, d_model].
        steps: How long the training is; the learning rate follows from it.
    """

    def __init__(self, recipe: Recipe, sample: Tensor, steps: int) -> None:
        self.sae = build(recipe, sample.shape[1])
        self.sae.fit_units(sample)
        module = SideBySide([Member("timed", self.sae, 0, [])], recipe)
        with quiet_lightning():
            module.trainer = pl.Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False)
        configured = module.configure_optimizers()
        self._optimizer, self._schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        self._steps, self._done = steps, 0

    def step(self, x: Tensor) -> None:
        """Learn from rows [batch, d_model]."""
        self._optimizer.zero_grad()
        self.sae.step(x, self._done / self._steps).loss.backward()
        self._optimizer.step()
        self._schedule.step()
        self._done += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the reconstruction of rows [batch, d_model]."""
        return self.sae.decode_sparse(*self.sae.sparse_codes(x))
