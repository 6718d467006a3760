from __future__ import annotations

import pytest

from refusal.report.sites import in_words


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ""),
        (["mlp_2"], "MLP writes of layer 2"),
        (["mlp_3", "attention_2", "attention_3", "mlp_2"], "attention and MLP writes of layers 2-3"),
        (["attention_0", "attention_1", "mlp_7"], "attention writes of layers 0-1; MLP writes of layer 7"),
        (["residuals_10", "residuals_11", "residuals_15"], "residual stream of layers 10-11, 15"),
        ([f"mlp_{layer}" for layer in (0, 5, 10, 15, 20)], "MLP writes of 5 layers from 0 to 20"),
    ],
)
def test_sites_in_words(names: list[str], words: str):
    assert in_words(names) == words
