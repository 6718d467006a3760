"""Every row as often as any other: large strata dominate, as they do in the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refusal.activations.samplers import Stratum, normalised


def weights(strata: Sequence[Stratum]) -> np.ndarray:
    """Return weights in proportion to the strata's rows, [n_strata]."""
    return normalised(strata, [stratum.rows for stratum in strata])
