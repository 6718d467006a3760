"""What every architecture that the configuration offers must do; the folder of choices is the list."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from refusal.config.schemas import TrainedSae
from refusal.sae.base import SparseAutoencoder
from refusal.sae.build import class_of
from refusal.sae.files import load_sae, save_sae
from refusal.sae.kernels.adam import Adam
from tests.config.test_options import composed
from tests.sae.conftest import D_MODEL

FOLDER = Path(__file__).parents[2] / "conf" / "sae"
CHOICES = sorted({path.stem for path in FOLDER.glob("[!_]*.yaml")} - {"pretrained"})
D_SAE = 64


@pytest.fixture(params=CHOICES)
def sae(request: pytest.FixtureRequest, rows: Tensor) -> SparseAutoencoder:
    """Each architecture with its default options, but for k and fewer features."""
    options = composed(f"sae={request.param}").sae
    assert isinstance(options, TrainedSae)
    own = options.sized(D_MODEL, D_SAE)
    sae = class_of(options.target)(D_MODEL, D_SAE, **(own | {"k": 3} if "k" in own else own), dead_after_rows=5000)
    sae.fit_units(rows)
    return sae


def test_it_learns(sae: SparseAutoencoder, rows: Tensor):
    losses = _train(sae, rows, 60)
    before, after = losses[0], losses[-1]
    assert after < 0.7 * before


def test_codes_are_not_negative_and_come_sparse_or_dense(sae: SparseAutoencoder, rows: Tensor):
    _train(sae, rows, 30)
    f = sae.encode(rows)
    assert f.shape == (512, D_SAE)
    assert bool((f >= 0).all())
    assert bool((f > 0).any())
    values, indices = sae.sparse_codes(rows)
    torch.testing.assert_close(torch.zeros(512, D_SAE).scatter(1, indices, values), f)
    torch.testing.assert_close(sae.decode_sparse(values, indices), sae.decode(f))


def test_the_codes_of_a_row_do_not_depend_on_the_others(sae: SparseAutoencoder, rows: Tensor):
    _train(sae, rows, 5)
    torch.testing.assert_close(sae.encode(rows)[7:9], sae.encode(rows[7:9]))


def test_it_comes_back_from_disk(sae: SparseAutoencoder, rows: Tensor, tmp_path: Path):
    _train(sae, rows, 5)
    save_sae(tmp_path, sae, model="tiny", site="mlp_1", cfg={})
    again = load_sae(tmp_path)
    assert type(again) is type(sae)
    assert torch.equal(again.encode(rows), sae.encode(rows))
    assert torch.equal(again.decode(again.encode(rows)), sae.decode(sae.encode(rows)))


def test_equal_seeds_train_to_equal_bits(sae: SparseAutoencoder, rows: Tensor, tmp_path: Path):
    save_sae(tmp_path, sae, model="tiny", site="mlp_1", cfg={})
    first = {name: value.clone() for name, value in sae.state_dict().items()}
    losses = _train(sae, rows, 5)
    sae.load_state_dict(first)
    assert _train(sae, rows, 5) == losses


def _train(sae: SparseAutoencoder, rows: Tensor, steps: int) -> list[float]:
    optimizer = Adam(sae.parameter_groups(), lr=5e-3)
    losses = []
    for step in range(steps):
        loss = sae.step(rows, step / steps).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses
