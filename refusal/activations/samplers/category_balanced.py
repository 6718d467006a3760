"""Every category alike, whatever its number of rows; inside a category, every row alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refusal.activations.samplers import Stratum, normalised


def weights(strata: Sequence[Stratum]) -> np.ndarray:
    """Return weights that give each category the same sum, [n_strata]."""
    rows: dict[str, int] = {}
    for stratum in strata:
        rows[stratum.category] = rows.get(stratum.category, 0) + stratum.rows
    return normalised(strata, [stratum.rows / max(1, rows[stratum.category]) for stratum in strata])
