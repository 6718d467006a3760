"""k-sparse probing on rows that are made so that one feature is the label, and no dimension is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from refusal.sae.quality.probing import Rows, best, probe, weighted_auc

D_MODEL, D_SAE, LABEL = 32, 48, 11


def _rows(n: int, seed: int) -> tuple[Rows, np.ndarray]:
    """Rows whose feature 11 fires if and only if they are of the class; x is a rotation of all features."""
    rng = np.random.default_rng(seed)
    is_class = rng.random(n) < 0.4
    f = np.maximum(rng.standard_normal((n, D_SAE)) - 0.5, 0)
    f[:, LABEL] = is_class * rng.uniform(0.5, 1.5, n)
    directions = np.random.default_rng(99).standard_normal((D_SAE, D_MODEL)) / D_MODEL**0.5
    return Rows(csr_array(f.astype(np.float32)), (f @ directions).astype(np.float32)), is_class


def _probe(n: int = 300, **targets: Any) -> dict[str, Any]:
    (train, y), (heldout, truth) = _rows(n, 1), _rows(n, 2)
    train_targets = {"toxic": {"toxic": y}} | {name: make(y) for name, make in targets.items()}
    heldout_targets = {"toxic": {"toxic": truth}} | {name: make(truth) for name, make in targets.items()}
    return probe(train, heldout, train_targets, heldout_targets, seed=0)


def test_one_feature_that_is_the_label_reads_it_off_and_one_dimension_does_not():
    toxic = _probe()["toxic"]
    assert toxic["features"]["1"]["auc"] == pytest.approx(1)
    assert toxic["dimensions"]["1"]["auc"] < 0.8
    assert toxic["dimensions"]["1"]["auc"] < toxic["dimensions"]["20"]["auc"] < toxic["features"]["20"]["auc"]
    assert toxic["all_dimensions"]["auc"] > toxic["dimensions"]["1"]["auc"]


def test_the_interval_holds_the_value():
    for probed in (_probe()["toxic"]["dimensions"][k] for k in ("1", "5", "20")):
        assert 0 < probed["low"] < probed["auc"] < probed["high"] <= 1


def test_a_target_of_several_classes_is_their_mean():
    found = _probe(category=lambda y: {"yes": y, "no": ~y})
    for source in ("features", "dimensions"):
        assert found["category"][source]["5"]["auc"] == pytest.approx(found["toxic"][source]["5"]["auc"], abs=0.01)


def test_what_cannot_be_read_off_is_at_chance():
    rng = np.random.default_rng(3)
    found = _probe(coin=lambda y: {"coin": rng.random(len(y)) < 0.5})
    assert found["coin"]["features"]["1"]["low"] < 0.5 < found["coin"]["features"]["1"]["high"]


def test_classes_with_too_few_rows_are_left_out():
    def few(y: np.ndarray) -> dict[str, np.ndarray]:
        return {"nine": np.arange(len(y)) < 9}

    assert set(_probe(rare=few)) == {"toxic"}
    assert set(_probe(both=lambda y: {"yes": y, **few(y)})) == {"toxic", "both"}
    assert _probe(n=12) == {}


def test_the_best_columns_differ_most_in_standard_deviations_whatever_their_scale():
    y = np.array([[True] * 3 + [False] * 3])
    rows = np.array([[1, 100, 5], [1, 300, 5], [1, 200, 5], [0, 150, 5], [0, 250, 5], [0, 50, 5]], dtype=np.float32)
    # column 0 differs by 1 of 0.5 standard deviations, column 1 by 50 of about 82, column 2 does not vary
    for values in (rows, csr_array(rows)):
        assert best(values, y, 2).tolist() == [[0, 1]]


def test_area_under_the_roc_by_hand():
    scores, is_class = torch.tensor([[3.0, 1.0, 2.0, 1.0]]), torch.tensor([True, True, False, False])
    # pairs: 3>2, 3>1, 1<2, 1=1: 2.5 of 4; with the first row counted twice and the last not at all: 2 of 3
    weights = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 0.0]])
    assert weighted_auc(scores, is_class, weights).flatten().tolist() == pytest.approx([2.5 / 4, 2 / 3])
    both = weighted_auc(torch.cat([scores, -scores]), is_class, weights)
    assert both[1].tolist() == pytest.approx([1.5 / 4, 1 / 3])
