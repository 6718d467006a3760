"""A category's directions: along which what a component writes differs when the model refuses.

A direction is that of the difference of means of refused and complied prompts, without the noise of few prompts. There
are two kinds, and a knock-out uses one of them throughout:

- of each write by itself (readings ``direct`` and ``circuit``);
- at each write, of all that has been written since a starting block (reading ``window``): a refusal that several blocks
  write is taken for one thing, and what the stream carried before is left out.
"""

from __future__ import annotations

import numpy as np

from refusal.comparison.crossfit import CrossFit
from refusal.comparison.denoise import covariance, posterior_mean, scatter


def write_directions(fit: CrossFit, stop: int) -> np.ndarray:
    """Return unit directions of each write of the first ``stop`` blocks, for use on each part, from the other parts.

    Shape [n_parts, n_categories, n_layers, 2, d_model]; zero from ``stop`` on.
    """
    directions = _nothing(fit)
    for layer, component in np.ndindex(stop, directions.shape[3]):
        directions[:, :, layer, component] = _difference(fit, fit.contrast.writes[:, layer, component])
    return unit(directions)


def window_directions(fit: CrossFit, start: int, stop: int) -> np.ndarray:
    """Return those of all that has been written since block ``start``; zero outside start .. stop - 1."""
    directions, since = _nothing(fit), np.zeros_like(fit.contrast.writes[:, 0, 0])
    for layer, component in np.ndindex(stop, directions.shape[3]):
        if layer >= start:
            since += fit.contrast.writes[:, layer, component]
            directions[:, :, layer, component] = _difference(fit, since)
    return unit(directions)


def _nothing(fit: CrossFit) -> np.ndarray:
    writes = fit.contrast.writes
    return np.zeros((fit.n_parts, len(fit.contrast.categories), *writes.shape[1:]), dtype=np.float32)


def _difference(fit: CrossFit, x: np.ndarray) -> np.ndarray:
    """Return the differences of means of x [n_prompts, d_model] without their noise."""
    return posterior_mean(fit.difference(x), covariance(scatter(fit.contrast, x)), fit.noise_scale())


def unit(difference: np.ndarray) -> np.ndarray:
    """Return vectors [..., d_model] at unit length; zero where they vanish."""
    length = np.linalg.norm(difference, axis=-1, keepdims=True)
    return np.divide(difference, length, out=np.zeros_like(difference), where=length > 1e-12)
