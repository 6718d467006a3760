"""Take the noise out of differences of means over few prompts.

What a component writes differs from prompt to prompt for reasons that have nothing to do with refusal, along some
dimensions far more than along others, and there a mean over few prompts is mostly noise. If a difference has components
of variance tau^2 and a noise of covariance c S, its posterior mean is

    tau^2 (tau^2 I + c S)^-1 difference,    c = 1 / n_refused + 1 / n_complied.

1. S is the covariance within the refused and within the complied prompts of a category, without what follows the
   refusal score: prompts refuse to different degrees, and that is no noise.
2. It is drawn towards a multiple of the identity as far as the number of prompts asks for (Ledoit and Wolf, 2004, "A
   well-conditioned estimator for large-dimensional covariance matrices", section 3.2).
3. tau^2 is what the differences' mean square is above their noise.

The more prompts there are, the less changes: c goes to 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refusal.comparison.contrast import Contrast

MIN_SIGNAL = 0.05
"""The least share of the differences' mean square that is taken for signal."""


def scatter(contrast: Contrast, x: np.ndarray) -> np.ndarray:
    """Return how x [n_prompts, d_model] deviates from the mean of its category and kind, apart from the score.

    Within a category the deviations' regression on those of the refusal score is taken out.
    """
    rest = np.zeros_like(x, dtype=np.float32)
    for category in range(len(contrast.categories)):
        kinds = [np.flatnonzero((contrast.category == category) & (contrast.refused == kind)) for kind in (True, False)]
        rows = np.concatenate(kinds)
        deviation = np.concatenate([x[own] - x[own].mean(0) for own in kinds if len(own)] or [x[:0]])
        score = np.concatenate([contrast.score[own] - contrast.score[own].mean() for own in kinds if len(own)] or [[]])
        spread = float(score @ score)
        rest[rows] = deviation - np.outer(score, score @ deviation / spread) if spread > 0 else deviation
    return rest


@dataclass(frozen=True)
class Covariance:
    """``floor`` along all dimensions, and more along some."""

    floor: float
    values: np.ndarray
    """Variance above the floor, [rank]."""
    vectors: np.ndarray
    """Where, orthonormal, [rank, d_model]."""

    @property
    def trace(self) -> float:
        """Variance over all dimensions."""
        return float(self.floor * self.vectors.shape[1] + self.values.sum())


def covariance(deviations: np.ndarray) -> Covariance:
    """Return the covariance of deviations [n_prompts, d_model] from zero, drawn towards the identity."""
    n, d = deviations.shape
    values, vectors = _principal(deviations)
    mean, square = values.sum() / d, (values**2).sum()
    spread = square - d * mean**2  # |S - mean I|^2, Frobenius
    error = ((deviations**2).sum(1) ** 2).sum() / n**2 - square / n  # its part that is sampling error
    towards = float(np.clip(error / spread, 0, 1)) if spread > 0 else 1.0
    return Covariance(towards * mean, (1 - towards) * values, vectors)


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variances of x [n, d] along its principal axes, and the axes [rank, d]."""
    n, d = x.shape
    if d <= n:
        values, axes = np.linalg.eigh(x.T @ x / n)
        return np.maximum(values, 0), axes.T
    values, combinations = np.linalg.eigh(x @ x.T / n)
    kept = values > 1e-6 * max(values[-1], 1e-30)
    axes = combinations[:, kept].T @ x
    return values[kept], axes / np.linalg.norm(axes, axis=1, keepdims=True)


def posterior_mean(difference: np.ndarray, noise: Covariance, scale: np.ndarray) -> np.ndarray:
    """Return differences [..., d_model] without their noise, which has ``scale`` [...] times the covariance."""
    square = (difference**2).sum(-1)
    signal = (square - scale * noise.trace)[square > 0]
    if not len(signal):
        return difference
    tau2 = max(signal.mean(), MIN_SIGNAL * square[square > 0].mean()) / difference.shape[-1]
    plain = tau2 / (tau2 + scale * noise.floor)[..., None]
    along = tau2 / (tau2 + scale[..., None] * (noise.floor + noise.values))
    return plain * difference + (difference @ noise.vectors.T * (along - plain)) @ noise.vectors
