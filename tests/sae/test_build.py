"""Autoencoders from recipes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from refusal import InputError
from refusal.sae.architectures.topk import TopK
from refusal.sae.build import build, class_of
from refusal.sae.recipe import Recipe


def test_a_recipe_says_everything(recipe: Recipe):
    sae = build(replace(recipe, seed=4), 16)
    assert isinstance(sae, TopK)
    assert (sae.d_model, sae.d_sae, sae.k) == (16, 64, 3)
    assert (sae.aux_k, sae.aux_coefficient, sae.dead_after_rows) == (8, 1 / 32, 1000)
    assert torch.equal(sae.W_dec, TopK(16, 64, 3, seed=4).W_dec)


def test_options_that_are_not_the_class_s_are_one_line(recipe: Recipe):
    with pytest.raises(InputError, match=r"TopK cannot be made with {'l1': 1}") as error:
        build(replace(recipe, options={"l1": 1}), 16)
    assert "\n" not in str(error.value)


def test_a_class_is_found_by_its_import_path():
    assert class_of("refusal.sae.architectures.topk.TopK") is TopK
    for target in ("refusal.sae.architectures.topk.Missing", "refusal.missing.TopK", "TopK"):
        with pytest.raises(InputError, match=f"there is no autoencoder '{target}'"):
            class_of(target)
    with pytest.raises(InputError, match=r"'torch.nn.Linear' is not a SparseAutoencoder"):
        class_of("torch.nn.Linear")
