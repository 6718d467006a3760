"""How an autoencoder is built and trained: plain numbers, known without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is built and trained."""

    target: str
    """The class, by its import path: ``refusal.sae.architectures.topk.TopK``."""
    hidden_dim: int
    """Number of features, d_sae."""
    lr: float
    batch_size: int
    epochs: float
    max_rows: int
    """Training ends after so many rows, however many epochs that is."""
    seed: int
    lr_warmup: float
    """Share of the steps in which the learning rate rises from 0, ..."""
    lr_decay: float
    """... and in which it falls to 0 at the end."""
    dead_after_rows: int
    """A feature counts as dead that was inactive for so many rows."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class, such as ``k``."""
