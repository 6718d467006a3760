"""Only prompts that ask for nothing harmful: the splits ``safe`` and ``hard``, each row alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refusal.activations.samplers import Stratum, normalised


def weights(strata: Sequence[Stratum]) -> np.ndarray:
    """Return weights in proportion to the rows of the strata that are not toxic, [n_strata]."""
    return normalised(strata, [stratum.rows * (stratum.split != "toxic") for stratum in strata])
