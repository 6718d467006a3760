"""Blocks that run again in the backward pass give the same gradients, and keep less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refusal.models import gradients
from refusal.models.gradients import differentiating, recomputing
from refusal.models.hooks import editing
from refusal.models.sites import Site
from refusal.models.suffix import SuffixBatch, suffix_batches
from tests.models.tiny import FAMILIES, N_LAYERS, TinyChat, prompts, tiny

SITES = [Site(kind, layer) for layer in range(N_LAYERS) for kind in ("attention", "mlp", "residuals")]


def batch_of(chat: TinyChat, n_suffix: int = 2) -> SuffixBatch:
    return next(iter(suffix_batches(chat, prompts([7, 4, 9]), n_suffix=n_suffix)))


def slopes(chat: TinyChat, batch: SuffixBatch) -> list[Tensor]:
    """The gradient of a logit at every site, by two backward passes whose results are added."""
    seen: dict[Site, Tensor] = {}

    def watch(site: Site, x: Tensor) -> Tensor:
        seen.setdefault(site, x if x.requires_grad else x.requires_grad_())
        return x

    with editing(chat.model, {site: lambda x, site=site: watch(site, x) for site in SITES}):
        logits = batch.logits()
        values = [seen[site] for site in SITES]
        first = torch.autograd.grad(logits[:, 3].sum(), values, retain_graph=True)
        second = torch.autograd.grad(logits[:, 5].sum(), values)
    return [a + b for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same(family: str) -> None:
    chat = tiny(family)
    batch = batch_of(chat)
    with torch.enable_grad():
        expected = slopes(chat, batch)
    with torch.enable_grad(), recomputing(chat.model):
        found = slopes(chat, batch)
    for site, one, other in zip(SITES, expected, found, strict=True):
        assert torch.equal(one, other), site
    assert all(slope.abs().max() > 0 for slope in found)


def test_only_what_goes_into_a_block_is_kept() -> None:
    chat = tiny("llama")
    batch = batch_of(chat, n_suffix=4)

    def kept() -> int:
        sizes: list[int] = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.nbytes)
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            slopes(chat, batch)
        return sum(sizes)

    with torch.enable_grad():
        usual = kept()
        with recomputing(chat.model):
            assert kept() < usual / 4


def test_afterwards_the_model_is_as_before() -> None:
    chat = tiny("llama")
    batch = batch_of(chat)
    before = batch.logits()
    with recomputing(chat.model):
        assert torch.equal(batch.logits(), before)  # without gradients nothing is kept anyway
    assert all("forward" not in vars(block) for block in chat.model.model.layers)
    assert torch.equal(batch.logits(), before)


@pytest.mark.parametrize(("large", "again"), [(1, True), (10**9, False)])
def test_blocks_run_again_where_the_model_is_large(monkeypatch: pytest.MonkeyPatch, large: int, again: bool) -> None:
    monkeypatch.setattr(gradients, "LARGE", large)
    chat = tiny("llama")
    with differentiating(chat.model):
        assert torch.is_grad_enabled()
        assert ("forward" in vars(chat.model.model.layers[0])) is again
