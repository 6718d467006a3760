"""Autoencoders that others have trained, taken for a site."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refusal import InputError
from refusal.activations.store import ActivationStore
from refusal.artifacts import read_json
from refusal.sae.architectures.topk import TopK
from refusal.sae.exchange.adopt import adopt, read_for
from refusal.sae.exchange.formats import Origin, write_sae
from refusal.sae.files import load_sae
from refusal.sae.quality.heldout import measure
from tests.sae.conftest import D_MODEL, OTHER_SITE, SITE


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """One in the files of SAELens, whose site we know by its hook."""
    folder = tmp_path / "theirs"
    write_sae(folder, TopK(D_MODEL, 48, k=3, aux_k=4, aux_coefficient=0.0, seed=5), Origin("tiny", SITE), "sae_lens")
    return folder


def test_it_is_measured_and_written_as_one_of_ours(store: ActivationStore, theirs: Path, tmp_path: Path) -> None:
    adopt(store, SITE, tmp_path, path=theirs, kind=None, model="tiny", kinds=["instruction"], cfg={"content": "abc"})
    sae = load_sae(tmp_path, model="tiny", site=SITE)
    rows = torch.randn(7, D_MODEL, generator=torch.Generator().manual_seed(0))
    read = read_for(theirs, "sae_lens", SITE, D_MODEL)
    assert torch.equal(sae.decode(sae.encode(rows)), read.decode(read.encode(rows)))
    assert read_json(tmp_path / "cfg.json")["content"] == "abc"
    history = read_json(tmp_path / "history.json")
    assert (history["imported"], history["train"], history["hidden_dim"]) == (str(theirs), [], 48)
    assert history["heldout"] == measure(sae, store, SITE, ["last", "last_instruction", "instruction"])


def test_one_of_another_site_or_width_is_refused(theirs: Path) -> None:
    with pytest.raises(InputError, match=rf"sae\.path={theirs} is an autoencoder of {SITE}, not of {OTHER_SITE}"):
        read_for(theirs, None, OTHER_SITE, D_MODEL)
    with pytest.raises(InputError, match=rf"for activations of width {D_MODEL}; those at {SITE} have 128"):
        read_for(theirs, None, SITE, 128)
