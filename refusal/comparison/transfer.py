"""Causal transfer: does knocking out what refuses one category stop the refusal of another?

1. From one half of the prompts, each category's direction at every component write: mean over refused minus mean
   over complied prompts, unit length.
2. On the other half, knock A's directions out from block N on and measure how far the refusal score falls on the
   refused prompts of every category B: drop[A, B]. Swap the halves, take both.
3. T_N = mean off-diagonal drop / mean own drop, a ratio of means.
4. The index is T at the latest N whose own-category drop is at least half of the best one: before it evidence is
   gathered and harm detected, which looks shared or specific in every model; the decision is what is asked about.

The last fifth of the blocks has no vote: all refusals end in the same first tokens there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refusal.comparison.contrast import N_HALVES, Contrast
from refusal.comparison.knockout import Condition, KnockOuts

VOTING_SHARE = 0.8
OWN_DROP_SHARE = 0.5
MIN_OWN_SHARE = 0.25
MAX_FULL_STARTS = 6  # starting blocks at which every category is knocked out; own-category drops are taken at all


@dataclass(frozen=True)
class Drops:
    """Fall of the refusal score on refused prompts when each category is knocked out from one starting block."""

    start: int
    values: np.ndarray
    """[n_categories knocked out, n_rows], nats."""
    category: np.ndarray
    """Category of each row's prompt, int [n_rows]."""
    half: np.ndarray
    """Half of each row's prompt, int [n_rows]."""

    def matrix(self) -> np.ndarray:
        """Return the mean drop [n_categories knocked out, n_categories tested]; NaN without prompts."""
        return by_category(self.values, self.category, len(self.values))

    def halves(self) -> np.ndarray:
        """Return the same for each half of the prompts, [2, n_categories, n_categories]."""
        own = [self.half == half for half in range(N_HALVES)]
        return np.stack([by_category(self.values[:, rows], self.category[rows], len(self.values)) for rows in own])


@dataclass(frozen=True)
class Direct:
    """The ``direct`` reading: the index, and what is printed beside it."""

    drops: Sequence[Drops]
    """At each starting block that was measured in full, the index's among them."""
    own: np.ndarray
    """Own-category drop by starting block and category, [n_voting_layers, n_categories], nats."""
    start: int
    """Starting block of the index."""
    random_drop: float
    """Mean drop when random directions of equal length are knocked out in the same way, nats."""
    divergence: float
    """KL divergence of the next token on complied prompts under their own category's knock-out, nats."""
    late_share: float
    """Share of the own-category drop that passes through what the blocks without a vote write."""

    @property
    def index_drops(self) -> Drops:
        """The drops at the index's starting block."""
        return next(drops for drops in self.drops if drops.start == self.start)


def voting_layers(n_layers: int) -> int:
    """Return how many of the first blocks have a vote."""
    return math.ceil(VOTING_SHARE * n_layers)


def index_of(matrix: np.ndarray, voting: Sequence[int]) -> float:
    """Return mean off-diagonal / mean diagonal of a drop matrix over the voting categories; NaN if undefined."""
    part = matrix[np.ix_(voting, voting)]
    if len(voting) < 2 or not np.diag(part).mean() > 0:
        return float("nan")
    return float(part[~np.eye(len(voting), dtype=bool)].mean() / np.diag(part).mean())


def transfer_matrix(drops: np.ndarray) -> np.ndarray:
    """Return drop[A, B] / drop[B, B]: the share of B's own drop that knocking A out achieves.

    An own drop near zero would make a ratio of anything: the denominator is at least a quarter of the mean own drop.
    NaN where drops are, and everywhere if the mean own drop is not positive.
    """
    own = np.diag(drops)
    mean = np.nanmean(own) if np.isfinite(own).any() else np.nan
    return drops / np.maximum(own, MIN_OWN_SHARE * mean) if mean > 0 else np.full(drops.shape, np.nan)


def by_category(values: np.ndarray, category: np.ndarray, n_categories: int) -> np.ndarray:
    """Return the means of values [..., n_rows] over each category's rows, [..., n_categories]; NaN where none."""
    means = np.full((*values.shape[:-1], n_categories), np.nan)
    for c in range(n_categories):
        if (category == c).any():
            means[..., c] = values[..., category == c].mean(-1)
    return means


def unit_directions(difference: np.ndarray) -> np.ndarray:
    """Return vectors [..., d_model] at unit length; zero where they vanish."""
    length = np.linalg.norm(difference, axis=-1, keepdims=True)
    return np.divide(difference, length, out=np.zeros_like(difference), where=length > 1e-12)


def contrast_directions(contrast: Contrast) -> np.ndarray:
    """Return the unit direction of each half and category at each write, [2, n_categories, n_layers, 2, d_model]."""
    return unit_directions(contrast.mean(contrast.writes, refused=True) - contrast.mean(contrast.writes, refused=False))


def measure_direct(knock_outs: KnockOuts, voting: Sequence[int], *, seed: int) -> Direct:
    """Measure the direct reading over the voting categories (indices); the seed is of the random control."""
    contrast = knock_outs.contrast
    directions = contrast_directions(contrast)
    n_categories, stop = len(contrast.categories), voting_layers(contrast.n_layers)
    own_falls = knock_outs.falls([knock_outs.off(directions, start, stop) for start in range(stop)])
    own = by_category(own_falls, knock_outs.category, n_categories)
    start = latest_deciding_start(own[:, list(voting)].mean(1))
    random = unit_directions(np.random.default_rng([seed, 3]).standard_normal(directions.shape, dtype=np.float32))
    starts = full_starts(stop, start)
    controls = [knock_outs.off(directions, start, stop, freeze_rest=True), knock_outs.off(random, start, stop)]
    # One call for all: the beginnings of the prompts are run once for it.
    frozen, control, *full = knock_outs.falls(
        controls + [condition for n in starts for condition in _one_by_one(knock_outs, directions, n, stop)]
    )
    values = np.reshape(full, (len(starts), n_categories, -1))
    votes = np.isin(knock_outs.category, voting)
    own_fall = own_falls[start, votes].mean()
    return Direct(
        drops=[_drops(knock_outs, n, of_start) for n, of_start in zip(starts, values, strict=True)],
        own=own,
        start=start,
        random_drop=float(control[votes].mean()),
        divergence=float(knock_outs.divergence(knock_outs.off(directions, start, stop)).mean()),
        late_share=float(1 - frozen[votes].mean() / own_fall) if own_fall > 0 else float("nan"),
    )


def measure_drops(knock_outs: KnockOuts, directions: np.ndarray, start: int, stop: int) -> Drops:
    """Knock every category out in turn from block ``start`` on; directions as in :func:`contrast_directions`."""
    return _drops(knock_outs, start, knock_outs.falls(_one_by_one(knock_outs, directions, start, stop)))


def _drops(knock_outs: KnockOuts, start: int, falls: np.ndarray) -> Drops:
    return Drops(start, falls, knock_outs.category, knock_outs.half)


def _one_by_one(knock_outs: KnockOuts, directions: np.ndarray, start: int, stop: int) -> list[Condition]:
    return [knock_outs.off(directions, start, stop, knocked=c) for c in range(directions.shape[1])]


def measure_window(knock_outs: KnockOuts, start: int) -> Drops:
    """Knock out one direction a category: that of all that the voting blocks from ``start`` on write together.

    It is projected off every later write at every position (method: reading ``window``).
    """
    contrast = knock_outs.contrast
    stop = voting_layers(contrast.n_layers)
    together = contrast.writes[:, start:stop].sum((1, 2))
    difference = contrast.mean(together, refused=True) - contrast.mean(together, refused=False)
    shape = (*difference.shape[:2], contrast.n_layers, 2, difference.shape[-1])
    directions = np.broadcast_to(unit_directions(difference)[:, :, None, None], shape)
    conditions = [
        knock_outs.off(directions, start, contrast.n_layers, knocked=c, everywhere=True)
        for c in range(len(contrast.categories))
    ]
    return _drops(knock_outs, start, knock_outs.falls(conditions, whole=True))


def latest_deciding_start(own_drop: np.ndarray) -> int:
    """Return the latest starting block whose own-category drop [n_starts] is at least half of the best.

    Where no knock-out lowers the score, that is the block at which it rises least.
    """
    best = own_drop.max()
    return int(np.flatnonzero(own_drop >= min(best, OWN_DROP_SHARE * best))[-1])


def full_starts(stop: int, start: int) -> list[int]:
    """Return the starting blocks to measure in full: all of few, else an even choice, always with the index's."""
    even = np.linspace(0, stop - 1, min(stop, MAX_FULL_STARTS)).round().astype(int)
    return sorted({*even.tolist(), start})
