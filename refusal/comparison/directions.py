"""A category's directions: along which what has been written since a starting block differs when the model refuses.

At every component write from block ``start`` on, the direction is that of the difference of means (refused minus
complied prompts) of all that components have written since ``start`` began: a refusal that several blocks write is
taken for the one thing that it is, and what the stream carried there before is left out.
"""

from __future__ import annotations

import numpy as np

from refusal.comparison.crossfit import CrossFit
from refusal.comparison.denoise import covariance, posterior_mean, scatter


def written_directions(fit: CrossFit, start: int, stop: int) -> np.ndarray:
    """Return unit directions for use on each part, from the other parts' prompts and without their noise.

    Shape [n_parts, n_categories, n_layers, 2, d_model]; zero outside the blocks start .. stop - 1.
    """
    contrast, scale = fit.contrast, fit.noise_scale()
    since = np.zeros_like(contrast.writes[:, 0, 0])
    directions = np.zeros((*scale.shape, *contrast.writes.shape[1:]), dtype=np.float32)
    for layer, component in np.ndindex(contrast.writes.shape[1:3]):
        if start <= layer < stop:
            since += contrast.writes[:, layer, component]
            noise = covariance(scatter(contrast, since))
            directions[:, :, layer, component] = posterior_mean(fit.difference(since), noise, scale)
    return unit(directions)


def accumulated(difference: np.ndarray, start: int) -> np.ndarray:
    """Return the unit directions of differences [..., n_layers, 2, d_model] summed up from block ``start`` on."""
    since = difference.copy()
    since[..., :start, :, :] = 0
    flat = since.reshape(*since.shape[:-3], -1, since.shape[-1])
    return unit(np.cumsum(flat, axis=-2).reshape(since.shape))


def unit(difference: np.ndarray) -> np.ndarray:
    """Return vectors [..., d_model] at unit length; zero where they vanish."""
    length = np.linalg.norm(difference, axis=-1, keepdims=True)
    return np.divide(difference, length, out=np.zeros_like(difference), where=length > 1e-12)
