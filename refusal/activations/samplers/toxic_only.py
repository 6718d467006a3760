"""Only prompts of the split ``toxic``, each row alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refusal.activations.samplers import Stratum, normalised


def weights(strata: Sequence[Stratum]) -> np.ndarray:
    """Return weights in proportion to the rows of the toxic strata, [n_strata]."""
    return normalised(strata, [stratum.rows * (stratum.split == "toxic") for stratum in strata])
