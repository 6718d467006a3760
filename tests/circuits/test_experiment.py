from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from refusal import InputError
from refusal.circuits.experiment import Experiment
from refusal.models.sites import parse_site
from tests.circuits.linear import linear_chat, prompt, random_experiment


def hand_experiment(**options: Any) -> Experiment:
    """d_model 2; one block: attention doubles x_0 into x_1, the MLP adds 3 x_1 to x_0; m = x_0 + x_1."""
    attention, mlp = [[0, 2], [0, 0]], [[0, 0], [3, 0]]
    chat = linear_chat([[1, 0], [0, 1]], [(attention, mlp)], [1, 1])
    sites = {parse_site(name): nn.Identity() for name in ("attention_0", "mlp_0", "residuals_0")}
    return Experiment(
        chat,
        [prompt(0, 0), prompt(1, 1)],
        ["hate", "hate"],
        np.array([True, False]),
        sites,  # type: ignore[arg-type]
        [0],
        **options,
    )


def test_activations_gradients_and_scores_by_hand() -> None:
    x, g, scores = hand_experiment().readings
    attention, mlp, residual = (parse_site(name) for name in ("attention_0", "mlp_0", "residuals_0"))
    # Prompt 0 is (1, 0): attention writes (0, 2), the MLP reads (1, 2) and writes (6, 0), the stream ends as (7, 2).
    # Prompt 1 is (0, 1): attention writes (0, 0), the MLP reads (0, 1) and writes (3, 0): (3, 1).
    torch.testing.assert_close(x[attention][:, 0], torch.tensor([[0.0, 2], [0, 0]]))
    torch.testing.assert_close(x[mlp][:, 0], torch.tensor([[6.0, 0], [3, 0]]))
    torch.testing.assert_close(x[residual][:, 0], torch.tensor([[7.0, 2], [3, 1]]))
    torch.testing.assert_close(scores, torch.tensor([9.0, 4]))
    # One more in x_1 before the MLP counts 1 by itself and 3 through the MLP.
    torch.testing.assert_close(g[attention][:, 0], torch.tensor([[1.0, 4], [1, 4]]))
    torch.testing.assert_close(g[residual][:, 0], torch.ones(2, 2))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_change_nothing(batch_size: int) -> None:
    base, other = random_experiment(), random_experiment(batch_size=batch_size)
    for site in base.sites:
        torch.testing.assert_close(base.readings.x[site], other.readings.x[site])
        torch.testing.assert_close(base.readings.g[site], other.readings.g[site])
        torch.testing.assert_close(base.reference.features[site], other.reference.features[site])


def test_the_mean_baseline_is_over_complied_prompts_of_the_category() -> None:
    experiment = random_experiment()
    site = experiment.sites[2]
    rows = experiment.rows("hate", refused=False)
    f, e = experiment.split(site, rows)[1:]
    assert len(rows) == 3
    torch.testing.assert_close(experiment.reference.features[site][0], f.mean(0))
    torch.testing.assert_close(experiment.reference.errors[site][0], e.mean(0))
    # decode is affine, so the baseline's activations are the mean activations.
    torch.testing.assert_close(experiment.baseline_x(site, rows)[0], experiment.readings.x[site][rows].mean(0))


def test_a_category_with_one_complied_prompt_takes_the_mean_of_all() -> None:
    experiment = random_experiment()
    refused = np.asarray(experiment.categories) == "hate"
    refused[0] = False
    few = replace(experiment, refused=refused)
    f = few.split(few.sites[0], np.flatnonzero(~refused)).f
    torch.testing.assert_close(few.reference.features[few.sites[0]][0], f.mean(0))


def test_another_baseline_needs_no_other_pass() -> None:
    experiment = random_experiment()
    zero = experiment.with_baseline("zero")
    assert zero.readings is experiment.readings
    assert zero.reference.features[zero.sites[0]].abs().max() == 0


def test_a_subset_keeps_the_baseline_and_may_repeat_prompts() -> None:
    experiment = random_experiment()
    rows = np.array([3, 3, 0])
    part = experiment.subset(rows)
    assert part.reference is experiment.reference
    torch.testing.assert_close(part.readings.scores, experiment.readings.scores[rows])
    fresh = replace(part).readings  # replace() forgets what was read: the part is run itself
    for site in part.sites:
        torch.testing.assert_close(part.readings.x[site], fresh.x[site])


def test_template_positions_are_all_tokens_after_the_instruction() -> None:
    experiment = random_experiment(positions="template")
    experiment.encoded = [prompt(0, i, 11 - i, n_template=2) for i in range(12)]
    x = experiment.readings.x[experiment.sites[0]]
    assert x.shape == (12, 2, 4)
    attention = experiment.chat.model.model.layers[0].self_attn
    torch.testing.assert_close(x[:, 0], attention(experiment.chat.model.embedding))
    assert experiment.readings.g[experiment.sites[0]][:, 0].abs().max() == 0  # tokens do not mix in this model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "first"}, "circuits.positions=first"),
        ({"baseline": "median"}, "circuits.baseline=median"),
    ],
)
def test_an_unknown_option_is_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        random_experiment(**options).reference  # noqa: B018


def test_a_template_without_text_after_the_instruction_is_refused() -> None:
    experiment = random_experiment()
    with pytest.raises(InputError, match="after the instruction"):
        replace(experiment, positions="template", encoded=[prompt(0, 1, n_template=0)] * 12)


def test_no_complied_prompt_leaves_no_mean() -> None:
    experiment = replace(random_experiment(), refused=np.ones(12, bool))
    with pytest.raises(InputError, match="complied with no prompt"):
        experiment.reference  # noqa: B018
