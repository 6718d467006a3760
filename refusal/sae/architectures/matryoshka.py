"""Matryoshka: the first features must reconstruct by themselves, so they stay general while later ones refine them.

With prefixes m_1 < ... < m_n = d_sae of the features, chosen as BatchTopK chooses them,

    z_hat_i = sum over j < m_i of f_j W_dec[j], + b_dec
    loss    = mean over i of the mean of (z - z_hat_i)^2, + aux_coefficient * AuxK's (see ``k_sparse``)

The paper sums over i; the mean differs by a factor that Adam does not see, and keeps the loss near the fraction of
variance unexplained.

Source: Bussmann, Nabeshima, Karvonen and Nanda, 2025, arXiv 2503.17547.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from refusal import InputError
from refusal.sae.architectures.batch_topk import BatchTopK


class Matryoshka(BatchTopK):
    """A BatchTopK autoencoder whose features are nested.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        k: Active features of a row, on average.
        prefixes: Shares of the features that must reconstruct by themselves, ascending, the last of them 1.
        options: Those of ``KSparse``.

    Raises:
        InputError: The prefixes are not ascending to 1, or k does not fit.
    """

    settings: ClassVar[tuple[str, ...]] = ("k", "prefixes")

    def __init__(self, d_model: int, d_sae: int, k: int, *, prefixes: Sequence[float], **options: Any) -> None:
        super().__init__(d_model, d_sae, k, **options)
        self.prefixes = list(prefixes)
        ends = [round(share * d_sae) for share in self.prefixes]
        if ends != sorted({*ends, d_sae} - {0}):
            raise InputError(f"sae.prefixes={self.prefixes} must be shares of {d_sae} features that ascend to 1")
        self.ends = torch.tensor(ends)
