"""Does a circuit explain the refusals of held-out prompts? Judged by interventions, on the refusal score m.

faithfulness(C) = (m(C) - m(0)) / (m(M) - m(0)): M is the model as it is, C has only the circuit's nodes live, 0 has
none (every site at its baseline). completeness(C) is the same with the circuit's nodes removed and all others live:
0 means that nothing outside the circuit refuses. Each m is a mean over the circuit's held-out prompts; where
the denominator is under 0.5 nats, both are undefined (None). CPR and CMD sum the curve up over growing circuits.

Source: Marks et al. 2024, arXiv 2403.19647, section 4; Mueller et al. 2025, arXiv 2504.13151 (CPR, CMD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from refusal.circuits.circuit import Circuit
from refusal.circuits.edges import prompts_of
from refusal.circuits.experiment import Experiment
from refusal.circuits.interventions import Live, joined, leaving, live_in
from refusal.circuits.select import ranks
from refusal.models.hooks import editing
from refusal.models.sites import Site

MIN_EFFECT = 0.5
"""Nats between the model and the model without nodes, below which ratios are noise."""
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of the circuits of a curve, as shares of all nodes (those of MIB)."""


@dataclass(frozen=True)
class CurvePoint:
    """The circuit of the n strongest nodes; those without any importance are added together."""

    share: float
    """n_nodes divided by the number of all nodes, before rounding."""
    n_nodes: int
    faithfulness: float
    completeness: float


@dataclass(frozen=True)
class Evaluation:
    """How well one circuit explains held-out prompts; None is undefined."""

    n_prompts: int
    score_model: float | None = None
    """Mean m(M), nats."""
    score_baseline: float | None = None
    """Mean m(0), nats."""
    faithfulness: float | None = None
    completeness: float | None = None
    faithfulness_with_errors: float | None = None
    """The same with all error nodes kept live."""
    completeness_with_errors: float | None = None
    """The same with no error node removed."""
    curve: tuple[CurvePoint, ...] = ()
    cpr: float | None = None
    """Area under the faithfulness curve, sizes on a log axis of length 1."""
    cmd: float | None = None
    """Area between the faithfulness curve and 1, same axis."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)


def evaluate(
    heldout: Experiment, circuits: Sequence[Circuit], means: Sequence[Mapping[Site, np.ndarray]]
) -> dict[tuple[str, str], Evaluation]:
    """Judge circuits on prompts that they were not chosen on.

    Args:
        heldout: The held-out prompts, against the baseline of the training prompts.
        circuits: What is judged.
        means: Of each circuit, the mean importances [d_sae + 1] by site that its nodes were chosen by.

    Returns:
        The evaluation of each circuit, by its ``key``.
    """
    if not circuits:
        return {}
    n_features = {site: heldout.saes[site].directions.shape[0] for site in heldout.sites}
    rank = [ranks(of_circuit) for of_circuit in means]
    table = {site: torch.from_numpy(np.stack([of_circuit[site] for of_circuit in rank])) for site in heldout.sites}
    sizes = curve_sizes(sum(n + 1 for n in n_features.values()))
    scores = _scores(heldout, circuits, _conditions(live_in(circuits, n_features), table, sizes))
    return {circuit.key: _evaluation(circuit, scores[i], sizes) for i, circuit in enumerate(circuits)}


def curve_sizes(n_nodes: int) -> np.ndarray:
    """Return how many nodes each of the ``SHARES`` of all nodes is, at least one, int64 [10]."""
    return np.maximum(np.round(np.multiply(SHARES, n_nodes)), 1).astype(np.int64)


def area(sizes: np.ndarray, values: np.ndarray) -> float:
    """Return the area under values over log(size), divided by the length of that axis."""
    axis = np.log(sizes)
    length = axis[-1] - axis[0]
    return float(trapezoid(values, axis) / length) if length else float(values[-1])


def _conditions(chosen: Live, rank: Mapping[Site, Tensor], sizes: np.ndarray) -> dict[str, Live]:
    """Return which nodes are live in each condition."""
    removed = chosen.inverted()
    conditions = {
        "baseline": Live({site: torch.zeros_like(live) for site, live in chosen.nodes.items()}),
        "circuit": chosen,
        "removed": removed,
        "circuit with errors": chosen.with_errors(),
        "removed with errors": removed.with_errors(),
    }
    for size in sorted(set(sizes.tolist())):
        top = Live({site: of_site < size for site, of_site in rank.items()})
        conditions |= {f"top {size}": top, f"without top {size}": top.inverted()}
    return conditions


def _scores(heldout: Experiment, circuits: Sequence[Circuit], conditions: Mapping[str, Live]) -> list[np.ndarray]:
    """Return each circuit's scores: a structured array [its prompts], a field a condition, and ``model`` as it is."""
    part, owner = joined(heldout, [prompts_of(heldout, circuit) for circuit in circuits])
    scores = np.zeros(len(owner), dtype=[(name, np.float64) for name in ("model", *conditions)])
    scores["model"] = part.readings.scores.numpy()
    for batch in part.batches():
        for name, live in conditions.items():
            edits = leaving(part, batch.index, owner[batch.index], live)
            with torch.no_grad(), editing(part.chat.model, edits):
                scores[name][batch.index] = part.score(batch).cpu().numpy()
    return [scores[owner == number] for number in range(len(circuits))]


def _evaluation(circuit: Circuit, scores: np.ndarray, sizes: np.ndarray) -> Evaluation:
    undefined = Evaluation(len(scores))
    if not len(scores) or not circuit.has_circuit:
        return undefined
    mean = {name: float(scores[name].mean()) for name in scores.dtype.names or ()}
    effect = mean["model"] - mean["baseline"]
    if abs(effect) < MIN_EFFECT:
        return replace(undefined, score_model=mean["model"], score_baseline=mean["baseline"])
    share = {name: (score - mean["baseline"]) / effect for name, score in mean.items()}
    curve = [
        CurvePoint(part, n, share[f"top {n}"], share[f"without top {n}"])
        for part, n in zip(SHARES, sizes.tolist(), strict=True)
    ]
    faithful = np.array([point.faithfulness for point in curve])
    return replace(
        undefined,
        score_model=mean["model"],
        score_baseline=mean["baseline"],
        faithfulness=share["circuit"],
        completeness=share["removed"],
        faithfulness_with_errors=share["circuit with errors"],
        completeness_with_errors=share["removed with errors"],
        curve=tuple(curve),
        cpr=area(sizes, faithful),
        cmd=area(sizes, np.abs(faithful - 1)),
    )
