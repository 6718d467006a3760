"""What autoencoders of each kind compute, written out in numpy, and random weights for them."""

from __future__ import annotations

import numpy as np

Weights = dict[str, np.ndarray]


def weights(d_model: int, d_sae: int, seed: int = 0) -> Weights:
    """Random W_enc [d_model, d_sae], b_enc, W_dec [d_sae, d_model], b_dec; rows of W_dec of lengths from 0.5 to 2."""
    rng = np.random.default_rng(seed)
    drawn = {
        "W_enc": rng.standard_normal((d_model, d_sae)),
        "b_enc": rng.normal(0, 0.3, d_sae),
        "W_dec": rng.standard_normal((d_sae, d_model)),
        "b_dec": rng.standard_normal(d_model),
    }
    drawn["W_dec"] *= rng.uniform(0.5, 2, (d_sae, 1)) / np.linalg.norm(drawn["W_dec"], axis=1, keepdims=True)
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def rows(d_model: int, n: int = 32, seed: int = 1) -> np.ndarray:
    """Random rows [n, d_model], not around the origin."""
    return (np.random.default_rng(seed).standard_normal((n, d_model)) + 0.5).astype(np.float32)


def pre_codes(x: np.ndarray, w: Weights, *, centred: bool = True) -> np.ndarray:
    """(x - b_dec) W_enc + b_enc, or x W_enc + b_enc, in double precision."""
    x = x.astype(np.float64)
    return (x - w["b_dec"] if centred else x) @ w["W_enc"] + w["b_enc"]


def topk(pre: np.ndarray, k: int) -> np.ndarray:
    """The k largest of each row, where positive."""
    smallest = np.sort(pre, axis=1)[:, -k][:, None]
    return np.where(pre >= smallest, np.maximum(pre, 0), 0)


def jumprelu(pre: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """What is over the threshold and positive."""
    return np.where(pre > threshold, np.maximum(pre, 0), 0)


def gate(d_sae: int, seed: int = 2) -> Weights:
    """Random b_gate, b_mag and r_mag, each [d_sae], of a gated autoencoder."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, d_sae).astype(np.float32) for name in ("b_gate", "b_mag", "r_mag")}


def gated(x: np.ndarray, w: Weights, more: Weights, *, centred: bool = True) -> np.ndarray:
    """Magnitudes of their own scale and bias, where the gate is over 0."""
    product = pre_codes(x, w, centred=centred) - w["b_enc"]
    return np.where(product + more["b_gate"] > 0, np.maximum(product * np.exp(more["r_mag"]) + more["b_mag"], 0), 0)


def decode(f: np.ndarray, w: Weights) -> np.ndarray:
    """F W_dec + b_dec."""
    return f @ w["W_dec"] + w["b_dec"]
