"""The shape of the learning rate."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl

from refusal.sae.architectures.topk import TopK
from refusal.sae.recipe import Recipe
from refusal.sae.training.side_by_side import Member, SideBySide


def test_the_learning_rate_rises_stays_and_falls(recipe: Recipe):
    training = SideBySide([Member("mlp_1", TopK(4, 64, 3), 0, [])], recipe)
    training.trainer = pl.Trainer(max_steps=100, logger=False, enable_checkpointing=False, accelerator="cpu")
    made = training.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"] / recipe.lr)
        optimizer.step()
        schedule.step()
    # 5 steps up: 1/5, 2/5, ...; 20 steps down: at step 90 half, at step 99 1/20
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(rates[5:80]) == {1.0}
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
