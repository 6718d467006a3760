"""BatchTopK by hand: which pairs are active in a batch, and the threshold that stands for them in use."""

from __future__ import annotations

import torch

from refusal.sae.architectures.batch_topk import BatchTopK
from refusal.sae.kernels.adam import Adam


def test_rows_share_the_active_features():
    # k = 2 and 3 rows: the 6 largest of the whole batch are 9, 8, 7, 6, 5 and 4; row 1 has none of them
    pre = torch.tensor([[9.0, 8.0, 7.0, 1.0], [3.0, 2.0, 1.0, 0.5], [6.0, 0.1, 5.0, 4.0]])
    pairs = BatchTopK(2, 4, 2).chosen_pairs(pre)
    assert pairs.rows.tolist() == [0, 0, 0, 2, 2, 2]
    assert pairs.features.tolist() == [0, 1, 2, 0, 2, 3]
    assert (pairs.n_rows, pairs.n_features) == (3, 4)


def test_the_threshold_follows_the_smallest_positive_active_code():
    sae = BatchTopK(2, 4, 1)
    assert float(sae.threshold) == 0
    sae.chosen_pairs(torch.tensor([[9.0, 4.0, 1.0, 0.0], [2.0, 1.0, 0.0, 0.0]]))  # 9 and 4 are active
    assert float(sae.threshold) == 4
    sae.chosen_pairs(torch.tensor([[9.0, 1.0, 1.0, 0.0], [2.0, 1.0, 0.0, 0.0]]))  # 9 and 2: 0.95 * 4 + 0.05 * 2
    torch.testing.assert_close(sae.threshold, torch.tensor(3.9))
    sae.chosen_pairs(torch.tensor([[9.0, -1.0, -1.0, -2.0], [-1.0, -1.0, -2.0, -3.0]]))  # 9 is the only positive one
    torch.testing.assert_close(sae.threshold, torch.tensor(0.95 * 3.9 + 0.05 * 9))
    sae.chosen_pairs(-torch.ones(2, 4))  # nothing to follow
    torch.testing.assert_close(sae.threshold, torch.tensor(0.95 * 3.9 + 0.05 * 9))


def test_in_use_the_threshold_decides():
    sae = BatchTopK(2, 4, 1)
    sae.threshold.fill_(1.5)
    pre = torch.tensor([[9.0, 1.5, 1.6, -9.0], [1.0, 0.0, 0.5, 1.4]])
    torch.testing.assert_close(sae.activate(pre), torch.tensor([[9.0, 0.0, 1.6, 0.0], [0.0, 0.0, 0.0, 0.0]]))


def test_rows_have_about_k_features_in_use_after_training():
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(512, 16, generator=rng) * torch.rand(512, 1, generator=rng)
    sae = BatchTopK(16, 64, 4)
    sae.fit_units(rows)
    optimizer = Adam(sae.parameter_groups(), lr=2e-3)
    for step in range(300):
        sae.step(rows[torch.randint(512, (128,), generator=rng)], step / 300).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    active = (sae.encode(rows) > 0).sum(1).float()
    assert 3.6 < float(active.mean()) < 4.4
    assert float(active.std()) > 0.5  # which is what TopK cannot
