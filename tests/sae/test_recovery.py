"""Known directions come back: rows that are sums of 8 of 512 directions, in 128 dimensions, with 5 % noise."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import embedding_bag, normalize

from refusal.config.schemas import TrainedSae
from refusal.sae.build import class_of
from refusal.sae.kernels.adam import Adam
from refusal.sae.sizes import learning_rate
from tests.config.test_options import composed

D_MODEL, N_DIRECTIONS, K, NOISE, STEPS, BATCH = 128, 512, 8, 0.05, 5000, 256


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["topk", "batch_topk"])
def test_the_directions_of_rows_are_found_with_the_default_options(choice: str):
    rng = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(N_DIRECTIONS, D_MODEL, generator=rng), dim=1)

    def rows(n: int) -> torch.Tensor:
        chosen = torch.rand(n, N_DIRECTIONS, generator=rng).topk(K).indices
        sizes = torch.rand(n, K, generator=rng) + 0.5
        signal = embedding_bag(chosen, directions, per_sample_weights=sizes, mode="sum")
        signal *= (1 - NOISE) ** 0.5 / signal.square().mean().sqrt()
        return signal + NOISE**0.5 * torch.randn(n, D_MODEL, generator=rng)

    options = composed(f"sae={choice}").sae
    assert isinstance(options, TrainedSae)
    own = options.sized(D_MODEL, N_DIRECTIONS) | {"k": K}
    sae = class_of(options.target)(D_MODEL, N_DIRECTIONS, dead_after_rows=options.dead_after_rows, **own)
    sae.fit_units(rows(4096))
    assert _recovered(directions, sae.W_dec) < 0.3  # the first weights know nothing of the directions
    lr = learning_rate(N_DIRECTIONS, options.lr)
    optimizer = Adam(sae.parameter_groups(), lr=lr)
    for step in range(STEPS):
        remaining = (STEPS - step) / (options.lr_decay * STEPS)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, remaining)
        optimizer.zero_grad()
        sae.step(rows(BATCH), step / STEPS).loss.backward()
        optimizer.step()
    assert _recovered(directions, sae.W_dec) >= 0.95


def _recovered(directions: torch.Tensor, W_dec: torch.Tensor) -> float:
    """Return the mean over directions of the largest cosine with a decoder row."""
    return float((directions @ normalize(W_dec.detach(), dim=1).T).max(1).values.mean())
