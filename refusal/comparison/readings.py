"""The readings of causal transfer as the comparison holds them: ``direct`` (the index), ``circuit`` and ``window``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refusal.circuits.circuit import Circuit
from refusal.comparison.bootstrap import combine_interval, transfer_interval
from refusal.comparison.contrast import Contrast
from refusal.comparison.direction_noise import direction_sd
from refusal.comparison.directions import unit
from refusal.comparison.knockout import WRITES, KnockOuts
from refusal.comparison.transfer import (
    Direct,
    Drops,
    index_of,
    measure_drops,
    own_drop,
    transfer_matrix,
    voting_layers,
)
from refusal.comparison.verdict import RESIDUAL_SD
from refusal.models.sites import Site


def reading(
    drops: Drops, voting: Sequence[int], *, bootstrap: int, rng: np.random.Generator, halved: Drops | None = None
) -> dict[str, Any]:
    """Return a reading: its index with the 95 % interval, its starting block, and its transfer matrix.

    The interval is that of the bootstrap over tested prompts, widened by the error of the directions, which it keeps
    as they are, and by the error that calibration found to remain. How far the directions err is seen from ``halved``,
    the same drops with directions by halves; None: ``drops`` are.
    """
    matrix = drops.matrix()
    index = index_of(matrix, voting)
    interval = transfer_interval(drops.values, drops.category, bootstrap, rng, voting=voting)
    of_directions = direction_sd((halved or drops).by_part()[:, voting][:, :, voting])
    low = high = None
    if interval and np.isfinite(index + of_directions):
        low, high = combine_interval(*interval, index, math.hypot(RESIDUAL_SD, of_directions))
    return {
        "index": number(index),
        "low": low,
        "high": high,
        "start": drops.start,
        "matrix": numbers(transfer_matrix(matrix)),
        "drops": numbers(matrix),
    }


def direct_reading(
    direct: Direct, voting: Sequence[int], effect: float, *, bootstrap: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the direct reading with its course over starting blocks; ``effect`` is what a drop is a share of, nats.

    The error of the directions is measured at the index's starting block, and taken to be the same at the others.
    """
    steps = []
    for drops in direct.drops:
        found = reading(drops, voting, halved=direct.halved, bootstrap=bootstrap, rng=rng)
        own = own_drop(drops.matrix(), voting)
        steps.append({**found, "own_drop": number(own), "explained_share": number(own / effect)})
    headline = next(step for step in steps if step["start"] == direct.start)
    shown = ("start", "index", "low", "high", "own_drop", "explained_share", "matrix", "drops")
    return {**headline, "by_start": [{name: step[name] for name in shown} for step in steps]}


def circuit_drops(
    knock_outs: KnockOuts,
    circuits: Mapping[str, Circuit],
    features: Callable[[Site], np.ndarray],
    directions: Mapping[Site, np.ndarray],
    start: int,
) -> Drops | None:
    """Knock out what each circuit writes, in the place of the difference of means; None if no circuit writes anything.

    A circuit's net write at a component is the sum over its nodes there of the mean change of the feature (refused
    minus complied) times its decoder row.

    Args:
        knock_outs: The study's refused prompts, by halves.
        circuits: By category.
        features: Gives f at the last position of every prompt of the contrast at a site, [n_prompts, d_sae]; asked
            for one site at a time, as they are large.
        directions: Decoder rows of the sites that are component writes, [d_sae, d_model].
        start: First block.
    """
    contrast = knock_outs.contrast
    stop = voting_layers(contrast.n_layers)
    net = np.zeros_like(knock_outs.fit.difference(contrast.writes))
    for site, rows in directions.items():
        if not start <= site.layer < stop:
            continue
        f = features(site)
        change = knock_outs.fit.difference(f)  # [2, n_categories, d_sae]
        chosen = _chosen(contrast, circuits, site, f.shape[1])
        net[:, :, site.layer, WRITES.index(site.kind)] = (change * chosen) @ rows
    if not net.any():
        return None
    return measure_drops(knock_outs, unit(net), start, stop)


def _chosen(contrast: Contrast, circuits: Mapping[str, Circuit], site: Site, d_sae: int) -> np.ndarray:
    chosen = np.zeros((len(contrast.categories), d_sae), dtype=np.float32)
    for row, category in enumerate(contrast.categories):
        if category in circuits:
            chosen[row, circuits[category].features(str(site))] = 1
    return chosen


def number(value: float) -> float | None:
    """Return a float that JSON can hold: None for NaN."""
    return float(value) if np.isfinite(value) else None


def numbers(matrix: np.ndarray) -> list[list[float | None]]:
    """Return a matrix that JSON can hold."""
    return [[number(value) for value in row] for row in matrix]
