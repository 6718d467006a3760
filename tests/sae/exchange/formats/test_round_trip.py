"""Law: an autoencoder written in a format and read back reconstructs the same, whatever its shape and units."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from refusal.sae.architectures.batch_topk import BatchTopK
from refusal.sae.architectures.gated import Gated
from refusal.sae.architectures.jumprelu import JumpReLU
from refusal.sae.architectures.matryoshka import Matryoshka
from refusal.sae.architectures.relu import ReLU
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.formats import Origin, read_sae, write_sae

ALL = [TopK, BatchTopK, Matryoshka, JumpReLU, Gated, ReLU]
KINDS = {"dictionary_learning": ALL, "refusal": ALL, "sae_lens": ALL, "sparsify": [TopK]}
CASES = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]
shapes = st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))


def random_one(kind: type[SparseAutoencoder], shape: tuple[int, int, int, int], scale: float) -> SparseAutoencoder:
    """One whose every weight is random."""
    d_model, d_sae, k, seed = shape
    settings = {"k": min(k, d_sae), "prefixes": [1.0]}
    sae = kind(d_model, d_sae, **{name: settings[name] for name in kind.settings})
    generator = torch.Generator().manual_seed(seed)
    for name, value in sae.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator))
            if name == "threshold":
                value.abs_()
    sae.scale.fill_(scale)
    return sae.eval().requires_grad_(False)


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: getattr(value, "__name__", value))
@given(shape=shapes, scale=st.floats(0.01, 100))
@settings(max_examples=20)
def test_it_reconstructs_the_same_after_a_round_trip(
    name: str, kind: type[SparseAutoencoder], shape: tuple[int, int, int, int], scale: float
):
    sae = random_one(kind, shape, scale)
    x = torch.randn(20, shape[0], generator=torch.Generator().manual_seed(1)) / scale
    with tempfile.TemporaryDirectory() as folder:
        write_sae(Path(folder) / "sae", sae, Origin("tiny", "mlp_3"), name)
        again = read_sae(Path(folder) / "sae")
    found, wanted = again.encode(x), sae.encode(x)
    assume(torch.equal(found > 0, wanted > 0))  # rounding may decide between codes that differ by it alone
    assert largest_gap(found, wanted) < 1e-5  # both may be small differences of large numbers
    assert largest_gap(again.decode(wanted), sae.decode(wanted)) < 1e-5


def largest_gap(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
