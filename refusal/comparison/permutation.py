"""Two questions about categories' importances, each with a permutation test, and what both need.

(a) :func:`distinguishable`: do prompts of one category resemble each other more than those of two? Statistic: mean
    cosine within categories minus mean cosine between them (each category, and each pair, with equal weight, self
    pairs left out: with a cosine kernel this is the unbiased MMD of Gretton 2012, so categories that scatter more
    cannot hide a difference). Null: category labels are exchangeable among the prompts.
(b) :func:`above_chance`: do two categories use the same features more than features of equal activity would
    coincide by chance? Statistic: cosine of the categories' mean importances. Null: identities of features are
    exchangeable within a site and a band of equal activity.

Both are one-sided, overall and for every pair. p = (1 + b) / (1 + n), b of n permutations reaching the observed
statistic: exact, never 0 (Phipson & Smyth 2010). Pairs are adjusted for their number (Benjamini & Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse

from refusal.comparison.similarity import Matrix

TIE = 1e-6
"""Statistics this near count as reaching the observed one (they are of order 1, in float32): errs to larger p."""
BATCH_ELEMENTS = 3_000_000
"""One-hot labels at a time: products large enough to be worth sharing out among threads."""


@dataclass(frozen=True)
class PermutationTest:
    """What a test found; None where a category has too few prompts, or no importance."""

    statistic: float | None
    p: float | None
    """Over all categories together."""
    pairs: Matrix
    """p of each pair of categories."""
    pairs_adjusted: Matrix
    """The same, adjusted for the number of pairs."""


def gram(importances: np.ndarray | sparse.csr_array) -> np.ndarray:
    """Return the cosine between all prompts' importances [n_prompts, n_features], [n_prompts, n_prompts].

    A prompt without importance resembles none (0).
    """
    rows = sparse.csr_array(importances, dtype=np.float64)
    length = np.sqrt(rows.multiply(rows).sum(1))
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    rows = sparse.csr_array(sparse.diags_array(inverse) @ rows)
    return (rows @ rows.T).toarray()


def distinguishable(
    cosines: np.ndarray, category: np.ndarray, n_categories: int, *, rng: np.random.Generator, n: int = 10_000
) -> PermutationTest:
    """Test (a): are the categories distinguishable?

    Args:
        cosines: Between prompts, from :func:`gram`, [n_prompts, n_prompts].
        category: Index of each prompt's category, int [n_prompts].
        n_categories: Those with fewer than two prompts are left out.
        rng: Draws the permutations.
        n: Their number.
    """
    counts = np.bincount(category, minlength=n_categories)
    testable = np.flatnonzero(counts >= 2).tolist()
    if len(testable) < 2:
        return _result(None, None, [], [], n_categories)
    statistic, p = _label_test(cosines, category, testable, rng, n)
    pairs = list(combinations(testable, 2))
    pair_p = [_label_test(cosines, category, pair, rng, n)[1] for pair in pairs]
    return _result(statistic, p, pairs, pair_p, n_categories)


def above_chance(
    vectors: np.ndarray,
    activity: np.ndarray,
    *,
    rng: np.random.Generator,
    site: np.ndarray | None = None,
    n_bands: int = 10,
    n: int = 10_000,
) -> PermutationTest:
    """Test (b): is the overlap of the categories' circuits above chance?

    Args:
        vectors: Mean importances, [n_categories, n_features].
        activity: Share of the prompts on which each feature is active, [n_features].
        rng: Draws the permutations.
        site: Index of each feature's site, int [n_features]; None: all of one site.
        n_bands: Bands of activity a site.
        n: Number of permutations.
    """
    length = np.linalg.norm(vectors, axis=1)
    testable = np.flatnonzero(length > 0)
    if len(testable) < 2:
        return _result(None, None, [], [], len(vectors))
    band = activity_bands(activity, site, n_bands)
    order = np.lexsort((rng.random(len(band)), band))  # bands together, at random within
    units = (vectors[testable] / length[testable, None])[:, order]
    i, j = np.triu_indices(len(testable), 1)
    observed = (units[i] * units[j]).sum(1)  # [n_pairs]
    permuted = np.zeros((n, len(observed)))
    for block in np.split(units, np.flatnonzero(np.diff(band[order])) + 1, axis=1):
        permuted += _shifted_products(block, i, j, rng, n)
    reached = (permuted >= observed - TIE).sum(0)
    reached_overall = (permuted.mean(1) >= observed.mean() - TIE).sum()
    pairs = list(combinations(testable.tolist(), 2))  # in the order of i and j
    pair_p = [exact_p(b, n) for b in reached.tolist()]
    return _result(float(observed.mean()), exact_p(int(reached_overall), n), pairs, pair_p, len(vectors))


def activity_bands(activity: np.ndarray, site: np.ndarray | None = None, n_bands: int = 10) -> np.ndarray:
    """Return the band of each feature, int [n_features]: equally many features of a site each, ties together.

    Features that are never active are a band of their own, 0 in the first site.
    """
    site = np.zeros(len(activity), dtype=int) if site is None else site
    band = np.zeros(len(activity), dtype=int)
    for s in np.unique(site[activity > 0]):
        active = np.flatnonzero((site == s) & (activity > 0))
        inner = np.quantile(activity[active], np.arange(1, n_bands) / n_bands, method="lower")
        band[active] = 1 + np.searchsorted(np.unique(inner), activity[active])
    return band + site * (n_bands + 1)


def exact_p(reached: int, n: int) -> float:
    """Return (1 + b) / (1 + n): p when b of n random permutations reach the observed statistic."""
    return (1 + reached) / (1 + n)


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p values [n_tests] adjusted so that rejecting those under q keeps the false discovery rate at q."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    scaled = p[order] * (len(p) / np.arange(1, len(p) + 1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def _label_test(
    cosines: np.ndarray, category: np.ndarray, chosen: Sequence[int], rng: np.random.Generator, n: int
) -> tuple[float, float]:
    """Return statistic and p of test (a) over the prompts of the chosen categories, which ascend.

    With Z the one-hot labels, G the cosines and C what each pair of labels counts, the statistic is the inner product
    of C and Z'GZ. The last column of Z is 1 minus the others: products with G are needed for these only.
    """
    rows = np.flatnonzero(np.isin(category, chosen))
    labels = np.searchsorted(chosen, category[rows]).astype(np.int8)
    g, spread = _standardised(cosines[np.ix_(rows, rows)])
    c = _contrast(np.bincount(labels))
    square, linear, constant = c[:-1, :-1] - 2 * c[:-1, -1:] + c[-1, -1], 2 * (c[:-1, -1] - c[-1, -1]), c[-1, -1]
    sums = g.sum(1)

    def statistics(shuffled: np.ndarray) -> np.ndarray:
        """Return the statistic of labels [batch, n_rows]."""
        z = (shuffled[:, None] == np.arange(len(c) - 1, dtype=np.int8)[:, None]).astype(np.float32)
        gz = (z.reshape(-1, len(rows)) @ g).reshape(z.shape)  # [batch, n_categories - 1, n_rows]
        zgz = gz @ z.transpose(0, 2, 1)
        return (zgz * square).sum((1, 2)) + (z @ sums) @ linear + constant * sums.sum()

    observed = statistics(labels[None])[0]
    reached = 0
    for size in _batches(n, len(rows) * (len(chosen) - 1)):
        shuffled = rng.permuted(np.tile(labels, (size, 1)), axis=1)
        reached += int((statistics(shuffled) >= observed - TIE).sum())
    return float(observed) * spread, exact_p(reached, n)


def _standardised(cosines: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the matrix with its off-diagonal at mean 0 and spread 1 and its diagonal 0, and the spread.

    A constant added to all pairs leaves the statistic as it is; so float32 keeps what varies.
    """
    off = ~np.eye(len(cosines), dtype=bool)
    mean, spread = float(cosines[off].mean()), float(cosines[off].std())
    scale = 1 / spread if spread > TIE else 0.0
    return np.where(off, (cosines - mean) * scale, 0.0).astype(np.float32), spread


def _contrast(counts: np.ndarray) -> np.ndarray:
    """Return what a pair of prompts of two categories counts in mean within minus mean between, float32 [k, k]."""
    k = len(counts)
    contrast = -1.0 / (k * (k - 1) * np.outer(counts, counts))
    np.fill_diagonal(contrast, 1.0 / (k * counts * (counts - 1)))
    return contrast.astype(np.float32)


def _shifted_products(block: np.ndarray, i: np.ndarray, j: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return the inner products of rows i and j after each row's random cyclic shift, [n, n_pairs].

    Shifts of a random order are a group under which the null's features are exchangeable, so p stays exact; and the
    products at all shifts are one cross-correlation, so that a permutation costs a look-up, not a pass over features.

    Args:
        block: Importances of one band's features, in random order, [n_categories, n_band].
        i: First rows of the pairs, [n_pairs].
        j: Second rows.
        rng: Draws the shifts.
        n: Their number.
    """
    width = block.shape[1]
    spectrum = np.fft.rfft(block, axis=1)
    products = np.fft.irfft(spectrum[i].conj() * spectrum[j], n=width, axis=1)  # [n_pairs, shift of j against i]
    shift = rng.integers(width, size=(n, len(block)))
    return products[np.arange(len(i)), (shift[:, i] - shift[:, j]) % width]


def _batches(n: int, elements: int) -> list[int]:
    """Return sizes that add up to n, each of at most so many elements in all."""
    size = max(1, min(n, BATCH_ELEMENTS // max(elements, 1)))
    return [size] * (n // size) + ([n % size] if n % size else [])


def _result(
    statistic: float | None,
    p: float | None,
    pairs: Sequence[tuple[int, int]],
    pair_p: Sequence[float],
    n_categories: int,
) -> PermutationTest:
    raw: Matrix = [[None] * n_categories for _ in range(n_categories)]
    adjusted: Matrix = [[None] * n_categories for _ in range(n_categories)]
    for (a, b), value, corrected in zip(pairs, pair_p, benjamini_hochberg(pair_p).tolist(), strict=True):
        raw[a][b] = raw[b][a] = value
        adjusted[a][b] = adjusted[b][a] = corrected
    return PermutationTest(statistic, p, raw, adjusted)
