"""Two studies side by side, such as a model and its fine-tune: does the index differ, and do the circuits recur?

1. Prompts are matched by their id; what counts are the categories that have a vote in both, and the prompts that both
   studies know. Each index is read at its own study's starting layer.
2. A paired bootstrap draws the prompts that at least one of the models refused, once for both, so that what the
   prompts have in common cancels in the difference of the indices.
3. Its interval is widened, as that of an index is, by the errors of both studies' directions and by calibration's.
4. Where both have autoencoders at a site, of models of the same width, features are matched by decoder direction
   (:mod:`refusal.comparison.matching`), and each category's circuit is compared with itself in the other study: in
   matched features, and by its net direction, which needs no features to recur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refusal import InputError
from refusal.comparison.bootstrap import combine_interval, drawn_transfer, percentile_interval
from refusal.comparison.direction_noise import direction_sd
from refusal.comparison.matching import aligned, match
from refusal.comparison.measured import Measured
from refusal.comparison.readings import number
from refusal.comparison.similarity import cosine
from refusal.comparison.transfer import Drops, index_of
from refusal.comparison.verdict import RESIDUAL_SD
from refusal.models.sites import Site

MIN_COMMON_SHARE = 0.5
"""Of either study's prompts: with fewer in common, they are studies of different prompts."""
PURPOSE = 9  # of the random numbers


@dataclass(frozen=True)
class _Tested:
    """One study's falls over the common categories and prompts."""

    drops: Drops
    halved: Drops
    """The same with directions from one half of the prompts for use on the other."""
    columns: np.ndarray
    """Which of the drawn prompts each column is, int [n_rows]."""


def difference(one: Measured, other: Measured, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Return what the second study's index is above the first's, and how far their circuits recur, as JSON holds it.

    Raises:
        InputError: A study has no index, the prompts do not match, or fewer than two categories have a vote in both.
    """
    for measured in (one, other):
        if measured.transfer is None:
            raise InputError("one of the studies has no index: fewer than two of its categories had a vote")
    ids = _common_prompts(one, other)
    names = [name for name in _voting(one) if name in _voting(other)]
    if len(names) < 2:
        raise InputError(f"only {len(names)} categories have a vote in both studies; two must have")
    category = dict(zip(one.attribution.prompt_ids, (one.categories[c] for c in one.category), strict=True))
    refused = {prompt for measured in (one, other) for prompt in _tested_ids(measured)}
    drawn = [prompt for prompt in ids if prompt in refused and category[prompt] in names]
    tested = [_restricted(measured, names, drawn) for measured in (one, other)]
    indices = [index_of(part.drops.matrix(), range(len(names))) for part in tested]
    gap = indices[1] - indices[0]
    chosen = np.arange(len(names))

    def statistic(counts: np.ndarray) -> np.ndarray:
        first, second = (
            drawn_transfer(part.drops.values, part.drops.category, chosen, counts[:, part.columns]) for part in tested
        )
        return second - first

    of_drawn = np.array([names.index(category[prompt]) for prompt in drawn])
    interval = percentile_interval(statistic, of_drawn, bootstrap, np.random.default_rng([seed, PURPOSE]))
    noise = math.hypot(*(math.hypot(RESIDUAL_SD, direction_sd(part.halved.by_part())) for part in tested))
    low, high = combine_interval(*interval, gap, noise) if interval and np.isfinite(gap + noise) else (None, None)
    return {
        "categories": names,
        "prompts": {"common": len(ids), "refused": [len(part.columns) for part in tested], "drawn": len(drawn)},
        "indices": [number(index) for index in indices],
        "difference": number(gap),
        "low": low,
        "high": high,
        "differs": None if low is None or high is None else bool(low > 0 or high < 0),
        "circuits": _recurrence(one, other, names),
    }


def _common_prompts(one: Measured, other: Measured) -> list[str]:
    """Return the ids of the prompts that both studies know, in the first one's order."""
    first, second = one.attribution.prompt_ids, other.attribution.prompt_ids
    known = set(second)
    common = [prompt for prompt in first if prompt in known]
    if len(common) < MIN_COMMON_SHARE * max(len(first), len(second)):
        raise InputError(
            f"the studies are of different prompts: {len(common)} of {len(first)} and {len(second)} are in both; "
            "run discover.py for both models with the same data and seed"
        )
    return common


def _voting(measured: Measured) -> list[str]:
    return [measured.categories[c] for c in measured.voting]


def _tested_ids(measured: Measured) -> list[str]:
    assert measured.transfer is not None
    return [measured.attribution.prompt_ids[row] for row in measured.transfer.tested.tolist()]


def _restricted(measured: Measured, names: Sequence[str], drawn: Sequence[str]) -> _Tested:
    """Return the study's falls for these categories (knocked out and tested, in this order) and prompts."""
    assert measured.transfer is not None
    direct = measured.transfer.direct
    numbers = [measured.categories.index(name) for name in names]
    place = {prompt: column for column, prompt in enumerate(drawn)}
    columns = np.array([place.get(prompt, -1) for prompt in _tested_ids(measured)])
    kept = np.flatnonzero((columns >= 0) & np.isin(direct.index_drops.category, numbers))

    def part(drops: Drops) -> Drops:
        category = np.array([numbers.index(c) for c in drops.category[kept].tolist()], dtype=int)
        return replace(drops, values=drops.values[numbers][:, kept], category=category, part=drops.part[kept])

    return _Tested(part(direct.index_drops), part(direct.halved), columns[kept])


def _recurrence(one: Measured, other: Measured, names: Sequence[str]) -> dict[str, Any]:
    """Return, by site, how the features that matter match, and how alike each category's circuits are."""
    found = {}
    for site in sorted(set(one.directions) & set(other.directions)):
        if one.directions[site].shape[1] == other.directions[site].shape[1]:
            found[str(site)] = _recurrence_at(one, other, names, site)
    return found


def _recurrence_at(one: Measured, other: Measured, names: Sequence[str], site: Site) -> dict[str, Any]:
    first, second = (_means(measured, names, site) for measured in (one, other))
    used = [np.flatnonzero(of_study.any(0)) for of_study in (first, second)]
    first, second = first[:, used[0]], second[:, used[1]]
    directions = one.directions[site][used[0]], other.directions[site][used[1]]
    matching = match(*directions)
    nets = first @ directions[0], second @ directions[1]
    return {
        "features": [len(features) for features in used],
        "matched": len(matching.cosine),
        "matched_cosine": number(float(matching.cosine.mean())) if len(matching.cosine) else None,
        "cosine": _by_name(names, *aligned(first, second, matching)),
        "net_direction": _by_name(names, *nets),
    }


def _by_name(names: Sequence[str], first: np.ndarray, second: np.ndarray) -> dict[str, float | None]:
    """Return the cosine of each row with the other's, by category."""
    return {name: cosine.similarity(a, b) for name, a, b in zip(names, first, second, strict=True)}


def _means(measured: Measured, names: Sequence[str], site: Site) -> np.ndarray:
    """Return each category's mean importances over its refused prompts, [n_categories, d_sae]."""
    importances = measured.attribution.importances[site]
    numbers = [measured.categories.index(name) for name in names]
    rows = [np.flatnonzero(measured.refused & (measured.category == c)) for c in numbers]
    return np.stack([importances.mean(own)[:-1] for own in rows])
