"""Several autoencoders trained side by side from one reading: each comes out as if it had trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from refusal.activations.store import ActivationStore
from refusal.artifacts import read_json
from refusal.sae.files import load_sae
from refusal.sae.recipe import Recipe
from refusal.sae.training.train import Job
from tests.sae.conftest import OTHER_SITE, SITE
from tests.sae.training.test_train import TRAINER, train_all

GROUP = [(SITE, 0), (OTHER_SITE, 0), (SITE, 1)]
PAIR = GROUP[1:]


def _train(
    store: ActivationStore, recipe: Recipe, folder: Path, group: Sequence[tuple[str, int]], **trainer: Any
) -> list[Path]:
    jobs = [Job(site, seed, folder / f"{site}-{seed}", f"{site}-{seed}") for site, seed in group]
    train_all(store, recipe, jobs, checkpoints=folder / "checkpoints", trainer={**TRAINER, **trainer})
    return [job.folder for job in jobs]


@pytest.mark.parametrize(
    ("architecture", "trainer"),
    [
        pytest.param("topk.TopK", {}, id="plain"),
        pytest.param("topk.TopK", {"gradient_clip_val": 0.01}, id="clipped"),
        pytest.param("topk.TopK", {"accumulate_grad_batches": 3}, id="gathered"),
        pytest.param("batch_topk.BatchTopK", {}, id="with thresholds"),
        pytest.param("batch_topk.BatchTopK", {"precision": "bf16-mixed"}, id="with thresholds, mixed"),
    ],
)
def test_each_has_the_bits_that_it_has_alone(
    store: ActivationStore, recipe: Recipe, tmp_path: Path, architecture: str, trainer: dict[str, Any]
):
    target = f"refusal.sae.architectures.{architecture}"
    recipe = replace(recipe, target=target, epochs=2, dead_after_rows=200)
    together = _train(store, recipe, tmp_path / "together", PAIR, **trainer)
    for member, folder in zip(PAIR, together, strict=True):
        (alone,) = _train(store, recipe, tmp_path / "alone", [member], **trainer)
        for file in ("sae.safetensors", "history.json"):
            assert (alone / file).read_bytes() == (folder / file).read_bytes()


def test_sites_learn_their_own_rows_and_seeds_begin_elsewhere(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    folders = _train(store, recipe, tmp_path, GROUP)
    weights = [load_file(folder / "sae.safetensors")["W_dec"] for folder in folders]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for (site, seed), folder in zip(GROUP, folders, strict=True):
        assert load_sae(folder, site=site).d_sae == 64
        assert read_json(folder / "cfg.json")["training"]["seed"] == seed
        assert read_json(folder / "history.json")["heldout"]["all"]["fvu"] < 0.15


def test_gathered_batches_make_the_steps_of_larger_ones(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    recipe = replace(recipe, epochs=2)
    (large,) = _train(store, recipe, tmp_path / "large", GROUP[:1])
    small = replace(recipe, batch_size=recipe.batch_size // 2)
    (gathered,) = _train(store, small, tmp_path / "gathered", GROUP[:1], accumulate_grad_batches=2)
    for folder in (large, gathered):
        points = read_json(folder / "history.json")["train"]
        assert [point["rows"] for point in points] == [64 * (i + 1) for i in range(30)]
    weights = [load_file(folder / "sae.safetensors") for folder in (large, gathered)]
    for name in weights[0]:  # sums round otherwise, and Adam may turn what is left of a gradient near 0 into a step
        differs = (weights[0][name] - weights[1][name]).abs() > 1e-4
        assert float(differs.float().mean()) < 0.05, name


class Norms(pl.Callback):
    """Notes how long each autoencoder's gradient is when the optimiser gets it."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        for member in pl_module.members:  # type: ignore[union-attr]
            squares = [p.grad.square().sum() for p in member.sae.parameters() if p.grad is not None]
            self.found += [float(torch.stack(squares).sum().sqrt())] if squares else []


def test_each_gradient_is_clipped_by_itself(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    norms = Norms()
    _train(store, replace(recipe, epochs=1), tmp_path, GROUP, gradient_clip_val=1e-3, callbacks=[norms])
    assert len(norms.found) == 14 * len(GROUP)  # of 15 steps; the last one's gradients are never cleared
    assert norms.found == pytest.approx([1e-3] * len(norms.found), rel=1e-2)
