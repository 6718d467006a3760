"""How large an autoencoder is where its options leave that to the model's width; known without torch."""

from __future__ import annotations

from refusal import InputError

MIN_K, MAX_K, MAX_AUX_K = 8, 64, 512


def n_active(hidden_dim: int, d_model: int, *, k: int | None, k_percent: float | None) -> int:
    """Return how many features are active in a row: k, or a share of all, or 1/32 of the width within 8 and 64.

    Raises:
        InputError: More features are to be active than there are.
    """
    if k is None and k_percent is not None:
        k = max(1, round(hidden_dim * k_percent / 100))
    if k is None:
        k = min(hidden_dim, MAX_K, max(MIN_K, d_model // 32))
    if k > hidden_dim:
        raise InputError(f"sae.k={k} is more than sae.hidden_dim={hidden_dim}: at most all features are active")
    return k


def n_auxiliary(d_model: int, aux_k: int | None) -> int:
    """Return how many dead features help to explain the error: half the width, at most 512 (Gao et al. 2024)."""
    return aux_k or min(d_model // 2, MAX_AUX_K)
