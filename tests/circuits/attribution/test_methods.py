"""Every method on cases whose answer is known: a linear model, where all causal methods agree, and a curved one."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from refusal.circuits.agreement import agreement
from refusal.circuits.attribution import atp, exact, ig, stats
from refusal.circuits.experiment import Experiment
from refusal.models.sites import parse_site
from tests.circuits.linear import HandSae, linear_chat, prompt, random_experiment

SITE = parse_site("mlp_0")


def decoy_experiment() -> Experiment:
    """d_model 2: the MLP writes x_0 (which is read, m = 3 x_0) and x_1 (a decoy that nothing reads).

    Refused prompts have x = (2, 2) and (4, 2), complied ones (0, 0) and (0.5, 0). The SAE is the positive axes.
    """
    chat = linear_chat([[2, 2], [4, 2], [0, 0], [0.5, 0]], [(np.zeros((2, 2)), np.eye(2))], [3, 0])
    return Experiment(
        chat,
        [prompt(0, i) for i in range(4)],
        ["hate"] * 4,
        np.array([True, True, False, False]),
        {SITE: HandSae(np.eye(2), np.eye(2))},
        [0],
    )


@pytest.mark.parametrize("method", [atp, ig, exact])
def test_causal_methods_by_hand(method: ModuleType) -> None:
    found = method.attribute(decoy_experiment())[SITE]
    # The complied mean of x_0 is 0.25, so x_0 counts 3 (2 - 0.25) = 5.25 and 3 (4 - 0.25) = 11.25; the decoy nothing.
    np.testing.assert_allclose(found.values.toarray()[:2], [[5.25, 0], [11.25, 0]], rtol=1e-5)
    np.testing.assert_allclose(found.values.toarray()[2:], [[-0.75, 0], [0.75, 0]], rtol=1e-5)
    np.testing.assert_allclose(found.error, 0, atol=1e-5)  # the SAE is perfect


def test_stats_by_hand_is_fooled_by_the_decoy() -> None:
    found = stats.attribute(decoy_experiment())[SITE]
    means = found.mean(np.array([0, 1]))
    refused = [1, 1, 0, 0]
    expected = np.corrcoef([2, 4, 0, 0.5], refused)[0, 1]  # 0.87
    np.testing.assert_allclose(means, [expected, 1, 0], rtol=1e-5, atol=1e-6)  # the decoy separates completely: 1
    assert means[1] > means[0]


def test_stats_is_the_point_biserial_correlation_within_each_category() -> None:
    experiment = random_experiment(3)
    found = stats.attribute(experiment)
    for site in experiment.sites:
        f = experiment.split(site, np.arange(12)).f[:, 0].numpy()
        for category in ("hate", "privacy"):
            rows = np.asarray(experiment.categories) == category
            with np.errstate(invalid="ignore", divide="ignore"):
                expected = [np.corrcoef(column, experiment.refused[rows])[0, 1] for column in f[rows].T]
            means = found[site].mean(experiment.rows(category, refused=True))
            np.testing.assert_allclose(means[:-1], np.nan_to_num(expected), atol=1e-5)


def test_stats_of_a_category_on_one_side_only_is_zero() -> None:
    experiment = replace(random_experiment(), refused=np.asarray(["hate", "privacy"] * 6) == "hate")
    for found in stats.attribute(experiment).values():
        assert abs(found.values).sum() == 0


@pytest.mark.parametrize("positions", ["last", "template"])
@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_in_a_linear_model_atp_ig_and_exact_agree(baseline: str, positions: str) -> None:
    experiment = random_experiment(1, baseline=baseline, positions=positions)
    first, integrated, truth = (method.attribute(experiment) for method in (atp, ig, exact))
    total = exact.total_effect(experiment)
    for site in experiment.sites:
        for other in (integrated, truth):
            np.testing.assert_allclose(first[site].values.toarray(), other[site].values.toarray(), atol=1e-4)
            np.testing.assert_allclose(first[site].error, other[site].error, atol=1e-4)
        np.testing.assert_allclose(first[site].total, total[site], atol=1e-4)  # completeness
        assert np.abs(first[site].error).max() > 0.01  # the dictionaries are poor: the error node matters


def test_in_a_curved_model_ig_is_complete_and_atp_is_not() -> None:
    experiment = random_experiment(2, activation=nn.GELU())
    total = exact.total_effect(experiment)
    misses = {}
    for name, found in (("atp", atp.attribute(experiment)), ("ig", ig.attribute(experiment, steps=20))):
        misses[name] = max(np.abs(found[site].total - total[site]).max() for site in experiment.sites)
    assert misses["ig"] < 0.01
    assert misses["atp"] > 0.1


def test_ig_gets_a_square_right_from_the_middle_alone() -> None:
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square()

    # The stream holds 3, attention_0 adds a = 3, the MLP adds the square: m = 3 + a + (3 + a)^2 rises from 12 at a = 0
    # to 42 at a = 3, by 30.
    chat = linear_chat([[3]], [([[1]], [[1]])], [1], Square())
    experiment = Experiment(
        chat,
        [prompt(0, 0)],
        ["hate"],
        np.array([True]),
        {parse_site("attention_0"): HandSae([[1]], [[1]])},
        [0],
        baseline="zero",
    )
    site = experiment.sites[0]
    # The slope at a is 1 + 2 (3 + a): 13 at the end, 10 in the middle, which is the mean of a straight line.
    np.testing.assert_allclose(ig.attribute(experiment, steps=1)[site].values.toarray(), [[30]], rtol=1e-5)
    np.testing.assert_allclose(exact.attribute(experiment)[site].values.toarray(), [[30]], rtol=1e-5)
    np.testing.assert_allclose(atp.attribute(experiment)[site].values.toarray(), [[39]], rtol=1e-5)


def test_exact_patches_the_strongest_candidates_only() -> None:
    experiment = random_experiment(1)
    full, few = exact.attribute(experiment), exact.attribute(experiment, candidates=2)
    for site in experiment.sites:
        kept = exact.ranked(atp.attribute(experiment)[site], 2)
        expected = np.zeros_like(full[site].values.toarray())
        expected[:, kept] = full[site].values.toarray()[:, kept]
        np.testing.assert_allclose(few[site].values.toarray(), expected, atol=1e-5)
        np.testing.assert_allclose(few[site].error, full[site].error, atol=1e-5)


def test_a_linear_model_agrees_with_itself() -> None:
    experiment = random_experiment(1)
    lines = agreement(experiment, atp.attribute(experiment), rng=np.random.default_rng(0), n_prompts=4)
    assert [line.site for line in lines] == [str(site) for site in experiment.sites]
    for line in lines:
        assert line.spearman == pytest.approx(1)
        assert line.attributed == pytest.approx(line.measured, abs=1e-4)


def test_stats_disagrees_where_a_decoy_is() -> None:
    experiment = random_experiment(1)
    lines = agreement(experiment, stats.attribute(experiment), rng=np.random.default_rng(0))
    assert min(line.spearman or 0 for line in lines) < 0.9
