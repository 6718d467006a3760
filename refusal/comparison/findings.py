"""Compare what a study measured: transfer, similarities of circuits, permutation tests, and circuits of sides.

The same for a study that has just been measured and for one on disk: no model is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refusal.comparison import overlap
from refusal.comparison.measured import Comparing, Measured
from refusal.comparison.readings import direct_reading, reading
from refusal.comparison.transfer import voting_layers
from refusal.models.sites import Site


def findings(measured: Measured, how: Comparing) -> dict[str, Any]:
    """Return what ``{model}_comparison.json`` says of transfer, sites, tests and sides."""
    return {
        "transfer": _transfer(measured, how),
        **_similarities(measured, how),
        "separate": _sides(measured, how) if measured.sides else None,
    }


def _transfer(measured: Measured, how: Comparing) -> dict[str, Any]:
    """Return the three readings; None where one was not measured."""
    transfer, voting = measured.transfer, measured.voting
    if transfer is None:
        return {"direct": None, "circuit": None, "window": None}
    direct = direct_reading(
        transfer.direct, voting, measured.mean_effect, bootstrap=how.bootstrap, rng=_generator(how, 2)
    )
    others = {"circuit": (transfer.circuit, 3), "window": (transfer.window, 4)}
    return {
        "direct": direct,
        **{
            name: reading(drops, voting, bootstrap=how.bootstrap, rng=_generator(how, purpose)) if drops else None
            for name, (drops, purpose) in others.items()
        },
    }


def _similarities(measured: Measured, how: Comparing) -> dict[str, Any]:
    """Return similarities by site, and of those together that the index is about, and the tests."""
    rows, sites = np.flatnonzero(measured.refused), sorted(measured.directions)
    stop = voting_layers(measured.n_layers)
    start = measured.transfer.direct.start if measured.transfer else 0
    rng = _generator(how, 5)

    def features(chosen: Sequence[Site]) -> overlap.Features:
        importances, n_categories = measured.attribution.importances, len(measured.categories)
        return overlap.join(importances, measured.directions, chosen, rows, measured.category[rows], n_categories)

    by_site = [
        {
            "site": str(site),
            "votes": site.is_write and site.layer < stop,
            "biased": not site.is_write,
            "measures": overlap.similarities(features([site]), threshold=how.node_threshold, rng=rng),
        }
        for site in sites
    ]
    together = _compared_together(sites, start, stop)
    return {
        "sites": by_site,
        "combined": {
            "sites": [str(site) for site in together],
            "measures": overlap.similarities(features(together), threshold=how.node_threshold, rng=rng),
        },
        "tests": overlap.tests(
            features(_compared_together(sites, 0, stop)), n=how.permutations, rng=_generator(how, 6)
        ),
    }


def _sides(measured: Measured, how: Comparing) -> dict[str, Any]:
    """Return how alike the circuits of safe, hard and toxic prompts are."""
    together = _compared_together(sorted(measured.directions), 0, voting_layers(measured.n_layers))
    sides = {}
    for name, side in measured.sides.items():
        category = measured.category[side.rows]
        rows = np.flatnonzero(side.has_circuit[category])
        importances, n_categories = side.attribution.importances, len(measured.categories)
        sides[name] = overlap.join(importances, side.directions, together, rows, category[rows], n_categories)
    return overlap.separate(sides, n=how.permutations, rng=_generator(how, 7))


def _compared_together(sites: Sequence[Site], start: int, stop: int) -> list[Site]:
    """Return the component writes of blocks start .. stop - 1; without any, all sites that are there."""
    return [site for site in sites if site.is_write and start <= site.layer < stop] or list(sites)


def _generator(how: Comparing, purpose: int) -> np.random.Generator:
    """Return random numbers of their own for each purpose."""
    return np.random.default_rng([how.seed, purpose])
