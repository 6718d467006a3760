"""What a knock-out changes: the deviation from the centre, along one direction, in chosen blocks; nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refusal.comparison.knockout import KnockOuts
from refusal.comparison.transfer import contrast_directions
from refusal.models.sites import Site
from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast, one_mechanism, two_mechanisms

MLP_0 = Site("mlp", 0)


def only(w: list[float], *, half: int | None = None) -> np.ndarray:
    """One direction at mlp_0 for both categories, [2, n_categories, n_layers, 2, d_model]; of one half, or both."""
    directions = np.zeros((2, 2, 2, 2, 2), np.float32)
    directions[slice(None) if half is None else half, :, 0, 1] = w
    return directions


def around(centre: list[float], *, half: int) -> KnockOuts:
    """A study of no model, in which the complied prompts of category b of one half write ``centre`` at mlp_0."""
    writes = np.zeros((16, 2, 2, 2))
    of_b = (np.array(CATEGORY) == 1) & (np.array(REFUSED) == 0) & (np.array(HALF) == half)
    writes[of_b, 0, 1] = centre
    return KnockOuts(two_mechanisms().chat, contrast(CATEGORY, REFUSED, HALF, writes=writes), [0])


def test_the_deviation_from_the_centre_is_projected_off_at_the_last_position() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    edits = around([9, 1], half=0).off(only([0, 1]), 0, 1, knocked=0)(np.array([8]))  # row 8: b, half 0
    assert list(edits) == [MLP_0]
    assert edits[MLP_0](x).tolist() == [[[1, 2], [3, 1]]]  # 4 - (4 - 1); the first component of the centre is no matter


def test_everywhere_means_earlier_positions_too_whose_centre_is_zero() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    edits = around([9, 1], half=0).off(only([0, 1]), 0, 1, knocked=0, everywhere=True)(np.array([8]))
    assert edits[MLP_0](x).tolist() == [[[1, 0], [3, 1]]]


@pytest.mark.parametrize("w", [[1, 0], [0, 1], [0.6, 0.8]])
def test_the_topic_of_a_prompt_is_left_alone(w: list[float]) -> None:
    topic = torch.tensor([[[2.0, -5.0]]])
    edits = around([2, -5], half=0).off(only(w), 0, 1, knocked=0)(np.array([8]))
    torch.testing.assert_close(edits[MLP_0](topic), topic)


def test_the_direction_is_that_of_the_other_half_and_the_centre_that_of_its_own() -> None:
    x = torch.tensor([[[3.0, 4.0]]])
    in_half_0, in_half_1 = np.array([8]), np.array([12])
    crossed = around([0, 1], half=0).off(only([0, 1], half=1), 0, 1)
    assert crossed(in_half_0)[MLP_0](x).tolist() == [[[3, 1]]]
    batch = crossed(np.array([8, 12]))[MLP_0](x.expand(2, 1, 2))
    assert batch.tolist() == [[[3, 1]], [[3, 4]]]  # half 0 has no direction for half 1
    assert crossed(in_half_1) == {}


def test_noise_in_the_means_does_not_look_like_a_mechanism_of_its_own() -> None:
    # All write the same direction when they refuse, under noise that 4 prompts a mean leave large: T is 1.
    rng = np.random.default_rng(0)
    category, refused, half = (np.tile(flags, 4) for flags in ([0] * 8 + [1] * 8, [1, 1, 0, 0] * 4, HALF))
    own, other = [], []
    for _ in range(40):
        writes = rng.standard_normal((64, 2, 2, 100)).astype(np.float32)
        writes[refused == 1, 0, 1, 0] += 4
        study = KnockOuts(two_mechanisms().chat, contrast(category, refused, half, writes=writes), [0])
        directions = contrast_directions(study.contrast)
        x = torch.from_numpy(writes[study.rows, None, 0, 1])
        for knocked in (0, 1):
            changed = study.off(directions, 0, 1, knocked=knocked)(study.rows)[MLP_0](x)
            fall = (x - changed)[:, 0, 0].numpy()
            own.append(fall[study.category == knocked].mean())
            other.append(fall[study.category != knocked].mean())
    assert np.mean(other) / np.mean(own) == pytest.approx(1, abs=0.05)


def test_only_the_blocks_from_start_to_before_stop_are_changed() -> None:
    study = two_mechanisms()
    directions = np.ones((2, 2, 2, 2, 2), np.float32)
    rows = np.array([0])
    assert set(study.off(directions, 1, 2)(rows)) == {Site("attention", 1), Site("mlp", 1)}
    assert set(study.off(directions, 0, 1)(rows)) == {Site("attention", 0), MLP_0}
    assert study.off(0 * directions, 0, 2)(rows) == {}


def test_frozen_blocks_write_what_they_wrote_before() -> None:
    study = two_mechanisms()
    edits = study.off(only([1, 0]), 0, 1, freeze_rest=True)(np.array([0]))
    assert set(edits) == {MLP_0, Site("attention", 1), Site("mlp", 1)}
    assert edits[Site("mlp", 1)](torch.zeros(1, 2, 2)).tolist() == [[[0, 0], [6, 0]]]  # 2x at the last position


def test_falls_of_the_refusal_score() -> None:
    # Refused prompts of a write (3, 0) and (6, 0): m = 12. Without the first component at mlp_0: x stays (3, 0), then
    # mlp_1 doubles it: m = 6. With mlp_1 frozen it adds (6, 0): m = 9. Those of b: (0, 4) loses nothing.
    study = two_mechanisms()
    first = only([1, 0])
    plain, frozen, nothing = study.falls(
        [study.off(first, 0, 1), study.off(first, 0, 1, freeze_rest=True), study.off(0 * first, 0, 2)]
    )
    np.testing.assert_allclose(plain, [6] * 4 + [0] * 4, atol=1e-5)
    np.testing.assert_allclose(frozen, [3] * 4 + [0] * 4, atol=1e-5)
    np.testing.assert_array_equal(nothing, 0)


def test_falls_are_the_same_with_whole_prompts_where_only_the_last_position_matters() -> None:
    study = one_mechanism()
    conditions = [study.off(only([1, 0]), 0, 1, knocked=c) for c in (0, 1)]
    np.testing.assert_allclose(study.falls(conditions), study.falls(conditions, whole=True), atol=1e-5)


def test_divergence_is_measured_on_complied_prompts() -> None:
    study = two_mechanisms()
    assert study.divergence(study.off(only([1, 0]), 0, 1)) == pytest.approx(np.zeros(8))  # they deviate in nothing
    # Complied prompts of b at the centre 0 instead of (0, 1): m from 4 to 2; KL = p log(p / q) + (1 - p) log(...).
    study.centres[:] = 0
    p, q = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-2))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert study.divergence(study.off(only([0, 1]), 0, 1)) == pytest.approx([0] * 4 + [expected] * 4, abs=1e-5)


def test_limited_keeps_the_first_of_each_category_and_half() -> None:
    study = two_mechanisms()
    part = study.limited(2)
    assert study.rows.tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert part.rows.tolist() == [0, 4, 8, 12]
    assert part.category.tolist() == [0, 0, 1, 1]
    assert part.half.tolist() == [0, 1, 0, 1]
    assert study.limited(100).rows.tolist() == study.rows.tolist()
    assert part.falls([]).shape == (0, 4)
