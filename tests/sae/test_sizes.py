from __future__ import annotations

import pytest

from refusal import InputError
from refusal.sae.sizes import learning_rate, n_active, n_auxiliary


@pytest.mark.parametrize(
    ("hidden_dim", "d_model", "k", "k_percent", "expected"),
    [
        (512, 128, None, None, 8),  # 128 / 32 = 4, at least 8
        (4096, 1024, None, None, 32),
        (16384, 4096, None, None, 64),  # 128, at most 64
        (5, 128, None, None, 5),  # there are no more
        (1024, 128, None, 1.0, 10),  # 10.24
        (512, 128, None, 0.01, 1),  # never none
        (512, 128, 16, 50.0, 16),
    ],
)
def test_active_features(hidden_dim: int, d_model: int, k: int | None, k_percent: float | None, expected: int) -> None:
    assert n_active(hidden_dim, d_model, k=k, k_percent=k_percent) == expected


def test_more_active_features_than_there_are() -> None:
    with pytest.raises(InputError, match=r"sae\.k=65 is more than sae\.hidden_dim=64"):
        n_active(64, 128, k=65, k_percent=None)


def test_features_that_help_dead_ones() -> None:
    assert [n_auxiliary(width, None) for width in (128, 1024, 4096)] == [64, 512, 512]
    assert n_auxiliary(128, 7) == 7


@pytest.mark.parametrize(
    ("hidden_dim", "lr", "expected"),
    [(64, None, 5e-3), (2_048, None, 5e-3), (8_192, None, 2.5e-3), (131_072, None, 6.25e-4), (8_192, 0.1, 0.1)],
)
def test_the_learning_rate_falls_with_the_root_of_the_features(
    hidden_dim: int, lr: float | None, expected: float
) -> None:
    assert learning_rate(hidden_dim, lr) == pytest.approx(expected)
