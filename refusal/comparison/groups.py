"""What else the transfer matrix says: groups of categories, how many circuits there are, and how much all share.

Rows of a transfer matrix are knocked out, columns are tested; S = (T + T') / 2 is its symmetric part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

MIN_GAP = 0.25
"""Mergers at distances this far apart (of 1, from all shared to nothing shared) are mergers of different kinds."""


@dataclass(frozen=True)
class Groups:
    """Groups of categories that share a mechanism."""

    members: Sequence[Sequence[int]]
    """Categories (rows of the matrix) of each group, largest group first."""
    order: Sequence[int]
    """All categories so that similar ones are neighbours: for heatmaps."""


def group_categories(transfer: np.ndarray) -> Groups:
    """Return the groups that a transfer matrix [n_categories, n_categories] without gaps falls into.

    1. Average linkage of the distances 1 - S, S limited to [0, 1].
    2. Cut in the widest gap between successive mergers, if it is at least 0.25.
    3. Without such a gap there is no structure: one group if categories share at least half on average, else each
       category is its own.
    """
    n = len(transfer)
    if n < 2:
        return Groups([[category] for category in range(n)], list(range(n)))
    distance = 1 - np.clip((transfer + transfer.T) / 2, 0, 1)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    heights = tree[:, 2]
    gaps = np.diff(heights)
    if len(gaps) and gaps.max() >= MIN_GAP:
        cut = heights[gaps.argmax()] + gaps.max() / 2
    else:
        cut = np.inf if distance.sum() / (n * (n - 1)) <= 1 / 2 else -np.inf
    group = fcluster(tree, cut, "distance")
    order = leaves_list(tree).tolist()
    members = [np.flatnonzero(group == g).tolist() for g in np.unique(group)]
    return Groups(sorted(members, key=lambda own: (-len(own), own)), order)


def effective_circuits(transfer: np.ndarray) -> float | None:
    """Return the effective number of circuits in a transfer matrix: 1 if all share one, n if each has its own.

    exp of the entropy of the eigenvalues of S, negative ones set to 0, divided by their sum; None if none is positive.
    """
    values = np.linalg.eigvalsh((transfer + transfer.T) / 2)
    positive = values[values > 0]
    if not len(positive):
        return None
    share = positive / positive.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def core_and_tail(drops: np.ndarray) -> tuple[float, float] | None:
    """Return the share of the effect that all categories use, and the share that only a category's own circuit has.

    Of category B's own drop, core is what even the least effective of the other categories' knock-outs achieves, tail
    what the most effective of them leaves; summed over B and divided by the sum of own drops (a ratio of means). The
    rest is shared by some. Extremes over noisy drops are too extreme: both shares err to the small side.

    Args:
        drops: Drops in nats, or transfer, [n_categories knocked out, n_categories tested], without gaps.

    Returns:
        Core and tail, each in [0, 1]; None with fewer than two categories, or without an own drop.
    """
    own = np.clip(np.diag(drops), 0, None)
    if len(drops) < 2 or not own.sum() > 0:
        return None
    diagonal = np.eye(len(drops), dtype=bool)
    core = np.clip(np.where(diagonal, np.inf, drops).min(0), 0, own)
    tail = own - np.clip(np.where(diagonal, -np.inf, drops).max(0), 0, own)
    return float(core.sum() / own.sum()), float(tail.sum() / own.sum())
