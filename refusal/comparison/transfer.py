"""Causal transfer: does knocking out what refuses one category stop the refusal of another?

1. Each category's direction at every component write (:mod:`refusal.comparison.directions`): that of the difference of
   means of refused and complied prompts; for each quarter of the prompts, from the other three.
2. Knock A's directions out from block N on and measure how far the refusal score falls on the refused prompts of every
   category B: drop[A, B].
3. T_N = mean off-diagonal drop / mean own drop, a ratio of means.
4. The index is T at the latest N whose own-category drop is at least half of the best one: before it evidence is
   gathered and harm detected, which looks shared or specific in every model; the decision is what is asked about.
   For this choice alone directions come from all prompts, the tested ones among them: what inexact directions leave
   standing would move the start to before the decision.

The last fifth of the blocks has no vote: all refusals end in the same first tokens there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refusal.comparison.directions import unit, window_directions, write_directions
from refusal.comparison.knockout import Condition, KnockOuts

VOTING_SHARE = 0.8
OWN_DROP_SHARE = 0.5
MIN_OWN_SHARE = 0.25
MAX_FULL_STARTS = 6  # starting blocks at which every category is knocked out, beside the index's


@dataclass(frozen=True)
class Drops:
    """Fall of the refusal score on refused prompts when each category is knocked out from one starting block."""

    start: int
    values: np.ndarray
    """[n_categories knocked out, n_rows], nats."""
    category: np.ndarray
    """Category of each row's prompt, int [n_rows]."""
    part: np.ndarray
    """Part of each row's prompt (:mod:`refusal.comparison.crossfit`), int [n_rows]."""

    def matrix(self) -> np.ndarray:
        """Return the mean drop [n_categories knocked out, n_categories tested]; NaN without prompts."""
        return by_category(self.values, self.category, len(self.values))

    def by_part(self) -> np.ndarray:
        """Return the same for the prompts of each part, [n_parts, n_categories, n_categories]."""
        own = [self.part == part for part in range(self.part.max(initial=0) + 1)]
        return np.stack([by_category(self.values[:, rows], self.category[rows], len(self.values)) for rows in own])


@dataclass(frozen=True)
class Direct:
    """The ``direct`` reading: the index, and what is printed beside it."""

    drops: Sequence[Drops]
    """At each starting block that was measured in full, the index's among them."""
    halved: Drops
    """Those at the index's starting block again, with directions from one half of the prompts for use on the other."""
    reach: np.ndarray
    """Own drop with the directions of all prompts, by starting block and category, [n_voting_layers, n_categories],
    nats: how the index's starting block is chosen."""
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


def own_drop(matrix: np.ndarray, voting: Sequence[int]) -> float:
    """Return the mean diagonal of a drop matrix over the voting categories, nats."""
    return float(np.diag(matrix)[list(voting)].mean())


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


def measure_direct(knock_outs: KnockOuts, voting: Sequence[int], *, seed: int) -> Direct:
    """Measure the direct reading over the voting categories (indices); the seed is of the random control."""
    stop = voting_layers(knock_outs.contrast.n_layers)
    reach = own_reach(knock_outs, stop)
    start = latest_deciding_start(reach[:, list(voting)].mean(1))
    halves, starts = knock_outs.by_halves(), full_starts(stop, start)
    directions = write_directions(knock_outs.fit, stop)
    random = unit(np.random.default_rng([seed, 3]).standard_normal(directions.shape, dtype=np.float32))
    plain = knock_outs.off(directions, start, stop)
    controls = [plain, knock_outs.off(directions, start, stop, freeze_rest=True), knock_outs.off(random, start, stop)]
    by_halves = _one_by_one(halves, write_directions(halves.fit, stop), start, stop)
    full = [condition for n in starts for condition in _one_by_one(knock_outs, directions, n, stop)]
    # One call for all: the beginnings of the prompts are run once for it.
    falls = np.split(knock_outs.falls(controls + by_halves + full), [len(controls), len(controls) + len(by_halves)])
    own, frozen, control = falls[0][:, np.isin(knock_outs.category, voting)].mean(1)
    return Direct(
        drops=[_drops(knock_outs, *of_start) for of_start in zip(starts, np.split(falls[2], len(starts)), strict=True)],
        halved=_drops(halves, start, falls[1]),
        reach=reach,
        start=start,
        random_drop=float(control),
        divergence=float(knock_outs.divergence(plain).mean()),
        late_share=float(1 - frozen / own) if own > 0 else float("nan"),
    )


def own_reach(knock_outs: KnockOuts, stop: int) -> np.ndarray:
    """Return each category's own drop with the directions of all its prompts, [n_starts, n_categories], nats.

    No more than its effect counts: what a knock-out takes beyond that is damage, and early ones do most.
    """
    contrast = knock_outs.contrast
    directions = unit(knock_outs.fit.pooled_difference(contrast.writes))
    falls = knock_outs.falls([knock_outs.off(directions, start, stop) for start in range(stop)])
    return np.minimum(by_category(falls, knock_outs.category, len(contrast.categories)), contrast.effect())


def measure_drops(
    knock_outs: KnockOuts, directions: np.ndarray, start: int, stop: int, *, together: bool = False
) -> Drops:
    """Knock every category out in turn; arguments as of :meth:`~refusal.comparison.knockout.KnockOuts.off`."""
    return _drops(knock_outs, start, knock_outs.falls(_one_by_one(knock_outs, directions, start, stop, together)))


def measure_window(knock_outs: KnockOuts, start: int) -> Drops:
    """Knock out, at each write of the voting blocks, what has been written since ``start`` (reading ``window``)."""
    stop = voting_layers(knock_outs.contrast.n_layers)
    return measure_drops(knock_outs, window_directions(knock_outs.fit, start, stop), start, stop, together=True)


def _drops(knock_outs: KnockOuts, start: int, falls: np.ndarray) -> Drops:
    return Drops(start, falls, knock_outs.category, knock_outs.part)


def _one_by_one(
    knock_outs: KnockOuts, directions: np.ndarray, start: int, stop: int, together: bool = False
) -> list[Condition]:
    categories = range(directions.shape[1])
    return [knock_outs.off(directions, start, stop, knocked=c, together=together) for c in categories]


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
