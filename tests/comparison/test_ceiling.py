from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from refusal.comparison.ceiling import corrected, noise_ceiling, noise_ceilings
from refusal.comparison.similarity import Measure, matrix, measures
from refusal.comparison.similarity.cosine import similarity as cosine


def noisy(means: np.ndarray, n_prompts: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Importances of prompts around each category's mean, [n_categories * n_prompts, n_features]."""
    rows = np.repeat(means, n_prompts, axis=0)
    return rows + rng.normal(0, noise, rows.shape)


def test_spearman_brown_by_hand():
    # two prompts have one split: cosine of (1, 0) and (1, 1) is r = sqrt(1/2); 2 r / (1 + r) = 0.828
    r = np.sqrt(0.5)
    found = noise_ceiling(np.array([[1.0, 0], [1, 1]]), cosine, rng=np.random.default_rng(0), splits=3)
    assert found == pytest.approx(2 * r / (1 + r))


def test_ceiling_is_the_reliability_of_the_mean():
    # unit mean, noise variance 0.04 in 200 dimensions, 40 prompts: 1 / (1 + 200 * 0.04 / 40) = 0.833
    rng = np.random.default_rng(0)
    mean = np.eye(200)[:1]
    found = [noise_ceiling(noisy(mean, 40, 0.2, rng), cosine, rng=rng, splits=20) for _ in range(40)]
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(1 / 1.2, abs=0.01)


def test_correction_finds_the_true_similarity_from_few_prompts():
    rng = np.random.default_rng(0)
    means = np.zeros((2, 300))
    means[0, 0], means[1, :2] = 1, (0.6, 0.8)  # true cosine 0.6
    category = np.repeat([0, 1], 21)
    raw, better = [], []
    for _ in range(60):
        rows = noisy(means, 21, 0.2, rng)
        measured = matrix([rows[category == c].mean(0) for c in range(2)], cosine)
        ceilings = noise_ceilings(rows, category, 2, cosine, rng=rng, splits=20)
        raw.append(measured[0][1])
        better.append(corrected(measured, ceilings)[0][1])
    assert np.mean(raw) == pytest.approx(0.6 / (1 + 300 * 0.04 / 21), abs=0.02)
    assert np.mean(better) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("measure", measures().values(), ids=measures().keys())
def test_prompts_without_noise_have_ceiling_one_and_sparse_equals_dense(measure: Measure):
    rng = np.random.default_rng(0)
    rows = np.tile([[1.0, 0, 2, 0, -1]], (7, 1))
    options = {"directions": rng.normal(size=(5, 3))}
    assert noise_ceiling(rows, measure, rng=rng, splits=5, **options) == pytest.approx(1)
    rows = rows + rng.normal(size=rows.shape)
    dense = noise_ceiling(rows, measure, rng=np.random.default_rng(1), splits=5, **options)
    found = noise_ceiling(sparse.csr_array(rows), measure, rng=np.random.default_rng(1), splits=5, **options)
    assert found == pytest.approx(dense)


def test_nothing_to_split_has_no_ceiling_and_opposite_halves_have_zero():
    rng = np.random.default_rng(0)
    assert noise_ceiling(np.ones((1, 3)), cosine, rng=rng) is None
    assert noise_ceiling(np.zeros((4, 3)), cosine, rng=rng) is None
    assert noise_ceiling(np.array([[1.0, 0], [-1, 0]]), cosine, rng=rng) == 0
    rows = np.array([[1.0, 0], [1, 0], [0, 1]])
    assert noise_ceilings(rows, np.array([0, 0, 2]), 3, cosine, rng=rng) == [pytest.approx(1), None, None]


def test_no_correction_under_a_low_ceiling():
    raw = [[1.0, 0.4, 0.2], [0.4, 1.0, None], [0.2, None, 1.0]]
    # 0.4 / sqrt(0.64 * 0.25): but 0.25 is under 0.3
    assert corrected(raw, [0.64, 0.25, 1.0]) == [[1.0, None, 0.25], [None, None, None], [0.25, None, 1.0]]
    assert corrected(raw, [0.64, None, 0.36])[0] == [1.0, None, pytest.approx(0.2 / 0.48)]
