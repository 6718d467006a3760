"""With the real packages, in an environment of their own: they load what is written here, and what they save is read.

Slow: each library takes some ten seconds to import, once. ``REFUSAL_PEERS_PYTHON=python`` names an environment that has
them; else one is made with pip, once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from refusal.sae.architectures.batch_topk import BatchTopK
from refusal.sae.architectures.gated import Gated
from refusal.sae.architectures.jumprelu import JumpReLU
from refusal.sae.architectures.matryoshka import Matryoshka
from refusal.sae.architectures.relu import ReLU
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.formats import Origin, dictionary_learning, read_sae, write_sae
from tests.sae.exchange.formats import reference
from tests.sae.exchange.formats.compare import gap, reconstruct
from tests.sae.exchange.formats.conftest import Peers
from tests.sae.exchange.formats.peers import D_MODEL, D_SAE, K

pytestmark = pytest.mark.slow
X = reference.rows(D_MODEL)
TOLERANCE = 1e-5  # of the largest entry


def ours(kind: type[SparseAutoencoder]) -> SparseAutoencoder:
    """One of random weights, with an input scaling."""
    settings = {"k": K, "prefixes": [0.25, 1]}
    sae = kind(D_MODEL, D_SAE, **{name: settings[name] for name in kind.settings})
    generator = torch.Generator().manual_seed(0)
    for name, value in sae.state_dict().items():
        if value.is_floating_point() and name != "scale":
            value.add_(0.1 * torch.randn(value.shape, generator=generator).abs())
    sae.scale.fill_(0.3)
    return sae.eval().requires_grad_(False)


KINDS = [TopK, BatchTopK, Matryoshka, JumpReLU, Gated, ReLU]
WRITTEN = [("sparsify", TopK), *((name, kind) for name in ("sae_lens", "dictionary_learning") for kind in KINDS)]


@pytest.mark.parametrize(("library", "kind"), WRITTEN, ids=lambda value: getattr(value, "__name__", value))
def test_they_reconstruct_alike_from_what_is_written_here(
    peers: Peers, tmp_path: Path, library: str, kind: type[SparseAutoencoder]
):
    sae = ours(kind)
    write_sae(tmp_path / "layers.3", sae, Origin("tiny", "residuals_3"), library)
    found = peers("load", library, tmp_path / "layers.3", x=X)
    print(f"{library} {kind.__name__}: {gap(found, reconstruct(sae, X)):.1e}")
    assert 0 < float((sae.encode(torch.from_numpy(X)) > 0).float().mean()) < 0.9
    assert gap(found, reconstruct(sae, X)) < TOLERANCE


SAVED = [
    *(("sae_lens", kind) for kind in ("TopK", "BatchTopK", "MatryoshkaBatchTopK", "JumpReLU", "Gated", "Standard")),
    ("sae_lens", "TopK_checkpoint"),
    ("sae_lens", "BatchTopK_checkpoint"),
    ("sae_lens", "MatryoshkaBatchTopK_checkpoint"),
    ("sparsify", "topk"),
    ("sparsify", "multi_topk"),
    ("sparsify", "expansion"),
    *(("dictionary_learning", kind) for kind in dictionary_learning.READERS),
]


@pytest.mark.parametrize(("library", "kind"), SAVED)
def test_what_they_save_reconstructs_alike_here(peers: Peers, tmp_path: Path, library: str, kind: str):
    wanted = peers("save", library, kind, tmp_path / "saved", x=X)
    found = reconstruct(read_sae(tmp_path / "saved"), X)
    print(f"{library} {kind}: {gap(found, wanted):.1e}")
    assert np.abs(wanted - wanted.mean(0)).max() > 0.5  # codes are active, so there is something to compare
    assert gap(found, wanted) < TOLERANCE
