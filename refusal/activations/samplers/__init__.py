"""How often a training row comes from each stratum; one file a choice, each with one function.

    weights(strata, **options) -> np.ndarray    [n_strata], not negative, sums to 1

A new choice is a new file here and one in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from refusal import InputError


class Stratum(NamedTuple):
    """The rows of one category in one split."""

    category: str
    split: str
    rows: int


Sampler = Callable[[Sequence[Stratum]], np.ndarray]


def normalised(strata: Sequence[Stratum], mass: Sequence[float] | np.ndarray) -> np.ndarray:
    """Scale the strata's masses [n_strata] to sum to 1.

    Raises:
        InputError: No stratum has any.
    """
    total = float(np.sum(mass))
    if total <= 0:
        splits = ", ".join(sorted({stratum.split for stratum in strata if stratum.rows})) or "none"
        raise InputError(f"the sampler leaves no rows to train on; there are rows of the splits: {splits}")
    return np.asarray(mass, dtype=np.float64) / total
