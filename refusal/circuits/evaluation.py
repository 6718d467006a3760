"""Does a circuit explain the refusals of held-out prompts? Judged by interventions, on the refusal score m.

faithfulness(C) = (m(C) - m(0)) / (m(M) - m(0)): M is the model as it is, C has only the circuit's nodes live, 0 has
none (every site at its baseline). completeness(C) is the same with the circuit's nodes removed and all others live:
0 means that nothing outside the circuit refuses. Each m is a mean over the circuit's held-out prompts; where
the denominator is under 0.5 nats, both are undefined (None).

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
from refusal.circuits.select import ranks, scaled
from refusal.models.hooks import editing
from refusal.models.sites import Site

MIN_EFFECT = 0.5
"""Nats between the model and the model without nodes, below which ratios are noise."""
CURVE_POINTS = 8


@dataclass(frozen=True)
class CurvePoint:
    """The circuit of the n strongest nodes."""

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
    removal_kl: float | None = None
    """The price: mean KL (nats) of the next-token distribution on the category's complied prompts when C is removed."""
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
    sizes = [curve_sizes(sum(map(np.count_nonzero, scaled(of_circuit).values()))) for of_circuit in means]
    conditions = _conditions(live_in(circuits, n_features), table, np.stack(sizes))
    scores = _scores(heldout, circuits, conditions)
    kl = _removal_kl(heldout, circuits, conditions["removed"])
    return {circuit.key: _evaluation(circuit, scores[i], sizes[i], kl[i]) for i, circuit in enumerate(circuits)}


def curve_sizes(n_nodes: int) -> np.ndarray:
    """Return growing circuit sizes, evenly spaced on a log axis from one node to all, int64 [CURVE_POINTS]."""
    return np.round(np.geomspace(1, max(n_nodes, 1), CURVE_POINTS)).astype(np.int64)


def area(sizes: np.ndarray, values: np.ndarray) -> float:
    """Return the area under values over log(size), divided by the length of that axis."""
    axis = np.log(sizes)
    length = axis[-1] - axis[0]
    return float(trapezoid(values, axis) / length) if length else float(values[-1])


def _conditions(chosen: Live, rank: Mapping[Site, Tensor], sizes: np.ndarray) -> dict[str, Live]:
    """Return which nodes are live in each condition; sizes is [n_circuits, CURVE_POINTS]."""
    removed = chosen.inverted()
    conditions = {
        "baseline": Live({site: torch.zeros_like(live) for site, live in chosen.nodes.items()}),
        "circuit": chosen,
        "removed": removed,
        "circuit with errors": chosen.with_errors(),
        "removed with errors": removed.with_errors(),
    }
    for point in range(CURVE_POINTS):
        size = torch.from_numpy(sizes[:, point, None])
        top = Live({site: of_site < size for site, of_site in rank.items()})
        conditions |= {f"top {point}": top, f"without top {point}": top.inverted()}
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


@torch.no_grad()
def _removal_kl(heldout: Experiment, circuits: Sequence[Circuit], removed: Live) -> list[float | None]:
    """Return the mean KL(model, model without C) of the next token on each circuit's complied prompts."""
    part, owner = joined(heldout, [heldout.rows(circuit.category, refused=False) for circuit in circuits])
    kl = np.zeros(len(owner))
    for batch in part.batches():
        usual = batch.logits().log_softmax(-1)
        with editing(part.chat.model, leaving(part, batch.index, owner[batch.index], removed)):
            changed = batch.logits().log_softmax(-1)
        kl[batch.index] = (usual.exp() * (usual - changed)).sum(-1).cpu().numpy()
    return [float(kl[owner == number].mean()) if (owner == number).any() else None for number in range(len(circuits))]


def _evaluation(circuit: Circuit, scores: np.ndarray, sizes: np.ndarray, kl: float | None) -> Evaluation:
    undefined = Evaluation(len(scores))
    if not len(scores) or not circuit.has_circuit:
        return undefined
    mean = {name: float(scores[name].mean()) for name in scores.dtype.names or ()}
    effect = mean["model"] - mean["baseline"]
    if abs(effect) < MIN_EFFECT:
        return replace(undefined, score_model=mean["model"], score_baseline=mean["baseline"], removal_kl=kl)
    share = {name: (score - mean["baseline"]) / effect for name, score in mean.items()}
    faithful = np.array([share[f"top {point}"] for point in range(CURVE_POINTS)])
    complete = np.array([share[f"without top {point}"] for point in range(CURVE_POINTS)])
    points = {int(n): CurvePoint(int(n), float(f), float(c)) for n, f, c in zip(sizes, faithful, complete, strict=True)}
    return replace(
        undefined,
        score_model=mean["model"],
        score_baseline=mean["baseline"],
        faithfulness=share["circuit"],
        completeness=share["removed"],
        faithfulness_with_errors=share["circuit with errors"],
        completeness_with_errors=share["removed with errors"],
        removal_kl=kl,
        curve=tuple(points.values()),
        cpr=area(sizes, faithful),
        cmd=area(sizes, np.abs(faithful - 1)),
    )
