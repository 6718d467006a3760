"""What every architecture that the configuration offers must do; the folder of choices is the list."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refusal.sae.files import class_of, load_sae, save_sae
from refusal.sae.recipe import Recipe
from tests.sae.conftest import D_MODEL

CHOICES = sorted((Path(__file__).parents[2] / "conf" / "sae").glob("[!_]*.yaml"))


@pytest.mark.parametrize("choice", CHOICES, ids=lambda path: path.stem)
def test_it_learns_and_comes_back_from_disk(choice: Path, recipe: Recipe, rows: torch.Tensor, tmp_path: Path):
    target = re.search(r"^target: (\S+)$", choice.read_text(), re.MULTILINE)
    assert target is not None
    sae = class_of(target[1])(D_MODEL, 64, 3, recipe=replace(recipe, target=target[1]))
    sae.fit_units(rows)
    optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = sae.step(rows, 0.5).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sae.after_update()
    assert losses[-1] < 0.7 * losses[0]
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
    f = sae.encode(rows)
    assert f.shape == (512, 64)
    assert bool((f >= 0).all())
    assert (f > 0).sum(1).float().mean() <= 3
    save_sae(tmp_path, sae, model="tiny", site="mlp_1", cfg={})
    again = load_sae(tmp_path)
    assert type(again) is type(sae)
    assert torch.equal(again.encode(rows), f)
