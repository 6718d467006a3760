"""Held-out figures by stratum: on a store of hate prompts, safe and toxic, whose rows are sparse sums."""

from __future__ import annotations

import pytest
import torch

from refusal.activations.store import ActivationStore
from refusal.sae.architectures.topk import TopK
from refusal.sae.quality import heldout
from refusal.sae.quality.heldout import measure
from refusal.sae.quality.metrics import Quality
from tests.sae.conftest import D_MODEL, PROMPTS, ROWS_PER_PROMPT, SITE

N_ROWS = PROMPTS * ROWS_PER_PROMPT
SECTIONS = ["last", "instruction"]


@pytest.fixture(scope="module")
def sae(store: ActivationStore) -> TopK:
    sae = TopK(D_MODEL, 64, 3)
    shard = next(shard for shard in store.shards if shard.fold == "train")
    sae.fit_units(torch.from_numpy(store.read_rows(shard, SITE, 0, N_ROWS)))
    return sae


def test_each_stratum_has_the_figures_of_its_own_rows(store: ActivationStore, sae: TopK):
    found = measure(sae, store, SITE, SECTIONS)
    assert list(found["splits"]) == ["safe", "toxic"]
    for shard in (shard for shard in store.shards if shard.fold == "heldout"):
        for part, n_rows in (("all", N_ROWS), ("last", PROMPTS)):
            x = torch.from_numpy(store.read_rows(shard, SITE, 0, n_rows))
            values, indices = sae.sparse_codes(x)
            expected = Quality(torch.full((D_MODEL,), 100.0), 64)
            expected.add(x, sae.decode_sparse(values, indices), values, indices)
            assert found["splits"][shard.split][part] == pytest.approx(expected.result(), rel=1e-4)


def test_strata_add_up_to_the_whole(store: ActivationStore, sae: TopK):
    found = measure(sae, store, SITE, SECTIONS)
    assert found["categories"] == {"hate": {part: found[part] for part in ("all", "last")}}
    safe, toxic = (found["splits"][split]["all"] for split in ("safe", "toxic"))
    assert found["all"]["n_rows"] == safe["n_rows"] + toxic["n_rows"] == 2 * N_ROWS
    assert found["all"]["l0"] == pytest.approx((safe["l0"] + toxic["l0"]) / 2)
    assert found["all"]["dead_fraction"] <= min(safe["dead_fraction"], toxic["dead_fraction"])


def test_a_store_too_large_to_be_read_whole_still_shows_every_stratum(
    store: ActivationStore, sae: TopK, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(heldout, "MOST_CHUNKS", 1)
    found = measure(sae, store, SITE, SECTIONS)
    assert {split: figures["last"]["n_rows"] for split, figures in found["splits"].items()} == {"safe": 30, "toxic": 30}
