"""How well something can be read off the few best features of a row, against the few best dimensions of the row itself.

k-sparse probing (Gurnee et al. 2023, section 3): the k features whose means differ most between a class and the other
rows, in standard deviations, are chosen on training rows; a logistic regression on them is judged on held-out rows by
the area under the ROC (AUC). Beside it the same with the raw dimensions, and a regression on all of them: what any
probe can find there. If features stand for what is asked, few of them come near to it, and few dimensions do not.

A target has one class (``refused``) or several, each told from all other rows (``category``): its AUC is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from refusal.sae.quality import logistic

SIZES = (1, 5, 20)  # k
MIN_ROWS = 10  # of a class, and of the others, among the training rows and among the held-out ones
DRAWS, LEVELS = 100, (2.5, 97.5)  # of the bootstrap over held-out rows

Targets = Mapping[str, Mapping[str, np.ndarray]]
"""For each target its classes, for each class which rows are of it: bool [n]."""


class Rows(NamedTuple):
    """The same rows as features and as they are."""

    codes: csr_array
    """[n, d_sae]"""
    x: np.ndarray
    """[n, d_model]"""


def probe(train: Rows, heldout: Rows, train_targets: Targets, heldout_targets: Targets, *, seed: int) -> dict[str, Any]:
    """Return for each target the AUC from features, from dimensions (both by k), and from all dimensions.

    Args:
        train: Rows that features are chosen and regressions fitted on.
        heldout: Rows that they are judged on.
        train_targets: What to read off; classes with too few rows are left out, and so are targets without classes.
        heldout_targets: The same of the held-out rows.
        seed: What the bootstrap's draws follow from.
    """
    chosen = [
        (target, name)
        for target, classes in train_targets.items()
        for name in classes
        if _is_enough(classes[name]) and _is_enough(heldout_targets[target][name])
    ]
    if not chosen:
        return {}
    y = np.stack([train_targets[target][name] for target, name in chosen])
    truth = [torch.tensor(heldout_targets[target][name]) for target, name in chosen]
    n = len(truth[0])
    draws = np.concatenate([np.ones((1, n)), np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS)])
    weights = torch.from_numpy(draws.astype(np.float32))

    found = torch.stack(
        [*_few(train.codes, heldout.codes, y), *_few(train.x, heldout.x, y), _all(train.x, heldout.x, y)]
    )
    areas = torch.stack([weighted_auc(found[:, i], own, weights) for i, own in enumerate(truth)], 1).numpy()
    owners = np.array([target for target, _ in chosen])

    def judged(target: str) -> dict[str, Any]:
        intervals = [_interval(one) for one in areas[:, owners == target].mean(1)]
        names = [str(k) for k in SIZES]
        return {
            "features": dict(zip(names, intervals[: len(SIZES)], strict=True)),
            "dimensions": dict(zip(names, intervals[len(SIZES) : -1], strict=True)),
            "all_dimensions": intervals[-1],
        }

    return {target: judged(target) for target in dict.fromkeys(owners.tolist())}


def best(rows: csr_array | np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the k columns of rows [n, d] whose means differ most, in standard deviations, for each class y [g, n]."""
    values: Any = rows.astype(np.float64)
    share = np.full((1, y.shape[1]), 1 / y.shape[1])
    mean, square = share @ values, share @ (values * values)
    difference = (y / y.sum(1, keepdims=True) - ~y / (~y).sum(1, keepdims=True)) @ values
    variance = square - mean**2
    varies = variance > 1e-9 * square
    score = np.where(varies, np.abs(difference) / np.sqrt(np.where(varies, variance, 1)), 0)
    return np.argsort(-score, axis=1, kind="stable")[:, :k]


def weighted_auc(scores: Tensor, is_class: Tensor, weights: Tensor) -> Tensor:
    """Return how often a row of the class [n] scores above another, ties half.

    Args:
        scores: [n_scorings, n]
        is_class: bool [n]
        weights: How often each row counts, [n_draws, n].

    Returns:
        [n_scorings, n_draws]
    """
    wins = torch.heaviside(scores[:, is_class, None] - scores[:, None, ~is_class], torch.tensor(0.5))
    ours, others = weights[:, is_class], weights[:, ~is_class]
    return ((ours @ wins) * others).sum(-1) / (ours.sum(1) * others.sum(1)).clamp(min=1)


def _few(train: csr_array | np.ndarray, heldout: csr_array | np.ndarray, y: np.ndarray) -> list[Tensor]:
    """Held-out scores [n_classes, n] of regressions on the k best columns, for each k."""
    columns = best(train, y, max(SIZES))
    used, place = np.unique(columns, return_inverse=True)
    place = place.reshape(columns.shape)
    x, x_heldout = (
        (rows[:, used].toarray() if isinstance(rows, csr_array) else rows[:, used]).T for rows in (train, heldout)
    )
    return [_fitted(x[place[:, :k]], x_heldout[place[:, :k]], y[:, None])[:, 0] for k in SIZES]


def _all(train: np.ndarray, heldout: np.ndarray, y: np.ndarray) -> Tensor:
    """Held-out scores [n_classes, n] of regressions on all columns."""
    return _fitted(train.T[None], heldout.T[None], y[None])[0]


def _fitted(train: np.ndarray, heldout: np.ndarray, y: np.ndarray) -> Tensor:
    """Held-out scores [n_groups, n_models, n] of regressions on [n_groups, d, n], in units of the training rows."""
    x, x_heldout = (torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)) for rows in (train, heldout))
    mean, deviation = x.mean(2, keepdim=True), x.std(2, keepdim=True)
    unit = torch.where(deviation > 0, deviation, 1.0)
    w = logistic.fit((x - mean) / unit, torch.from_numpy(y).float())
    return logistic.scores((x_heldout - mean) / unit, w)


def _is_enough(is_class: np.ndarray) -> bool:
    return min(is_class.sum(), (~is_class).sum()) >= MIN_ROWS


def _interval(draws: np.ndarray) -> dict[str, float]:
    """The value itself, which comes first, and the interval of the others."""
    low, high = np.percentile(draws[1:], LEVELS)
    return {"auc": float(draws[0]), "low": float(low), "high": float(high)}
