"""How an autoencoder is built and trained: plain numbers, known without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is built and trained."""

    target: str
    """The class, by its import path: ``refusal.sae.topk.TopK``."""
    hidden_dim: int
    """Number of features, d_sae."""
    k: int
    """Active features of a row."""
    lr: float
    batch_size: int
    epochs: float
    max_rows: int
    """Training ends after so many rows, however many epochs that is."""
    seed: int
    aux_k: int
    aux_coefficient: float
    dead_after_rows: int
