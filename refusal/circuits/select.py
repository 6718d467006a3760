"""Choose a circuit's nodes from mean importances: those above a share of the site's strongest feature.

Scaling by the strongest feature of the site makes one threshold mean the same on every model. The error node is
left out of that maximum: a badly reconstructed site would otherwise hide its features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refusal.circuits.circuit import ERROR, Node
from refusal.models.sites import Site

NEGLIGIBLE = 1e-6
"""A site whose strongest feature matters less than this (nats) does nothing but round."""


def scales(means: Mapping[Site, np.ndarray]) -> dict[Site, float]:
    """Return each site's largest |mean importance| of a feature, 0 where it is negligible.

    Args:
        means: For each site [d_sae + 1], the error node last.
    """
    largest = {site: float(np.abs(mean[:-1]).max(initial=0.0)) for site, mean in means.items()}
    return {site: value if value > NEGLIGIBLE else 0.0 for site, value in largest.items()}


def scaled(means: Mapping[Site, np.ndarray]) -> dict[Site, np.ndarray]:
    """Divide each site's means [d_sae + 1] by its scale; a site of scale 0 becomes all 0."""
    by_site = scales(means)
    return {site: mean / by_site[site] if by_site[site] else np.zeros_like(mean) for site, mean in means.items()}


def choose_nodes(
    means: Mapping[Site, np.ndarray], *, threshold: float, top_n_per_layer: int | None = None
) -> list[Node]:
    """Return the nodes whose scaled importance reaches the threshold, site by site, strongest first.

    Args:
        means: For each site [d_sae + 1], the error node last.
        threshold: Share of the site's strongest feature, in (0, 1].
        top_n_per_layer: At most this many nodes a site.
    """
    relative = scaled(means)
    nodes = []
    for site in sorted(means):
        strength = np.abs(relative[site])
        order = np.argsort(-strength, kind="stable")[: int((strength >= threshold).sum())]
        nodes += [_node(site, index, means[site], relative[site]) for index in order[:top_n_per_layer]]
    return nodes


def ranks(means: Mapping[Site, np.ndarray]) -> dict[Site, np.ndarray]:
    """Rank all sites' nodes together by |scaled importance|: 0 is the strongest.

    The nodes that a threshold selects are those of the lowest ranks, so that circuits of growing size are nested.

    Args:
        means: For each site [d_sae + 1], the error node last.

    Returns:
        For each site int64 [d_sae + 1]; nodes without importance all have the highest rank, the number of the others.
    """
    relative = scaled(means)
    sites = sorted(relative)
    strength = np.abs(np.concatenate([relative[site] for site in sites]))
    rank = np.empty(len(strength), dtype=np.int64)
    rank[np.argsort(-strength, kind="stable")] = np.arange(len(strength))
    rank = np.minimum(rank, int((strength > 0).sum()))
    ends = np.cumsum([len(relative[site]) for site in sites])
    return dict(zip(sites, np.split(rank, ends[:-1]), strict=True))


def _node(site: Site, index: np.intp, mean: np.ndarray, relative: np.ndarray) -> Node:
    feature = ERROR if index == len(mean) - 1 else int(index)
    return Node(str(site), feature, float(mean[index]), float(relative[index]))
