"""What a knock-out changes: the deviation from the centre, along one direction, in chosen blocks; nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refusal.comparison.directions import unit
from refusal.comparison.knockout import Condition, KnockOuts
from refusal.models.sites import Site
from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast, two_mechanisms

SITES = [Site("attention", 0), Site("mlp", 0), Site("attention", 1)]
MLP_0 = SITES[1]


def only(w: list[float], *, part: int | None = None) -> np.ndarray:
    """One direction at mlp_0 for both categories, [n_parts, n_categories, n_layers, 2, d_model]; for a part, or all."""
    directions = np.zeros((4, 2, 2, 2, 2), np.float32)
    directions[slice(None) if part is None else part, :, 0, 1] = w
    return directions


def around(centre: list[float]) -> KnockOuts:
    """A study of no model, in which the first complied prompt of category b, alone in part 0, writes at mlp_0."""
    writes = np.zeros((16, 2, 2, 2))
    writes[10, 0, 1] = centre
    return KnockOuts(two_mechanisms().chat, contrast(CATEGORY, REFUSED, HALF, writes=writes), [0])


def written(condition: Condition, row: int, *writes: torch.Tensor) -> torch.Tensor:
    """What the last of some writes becomes on one prompt: those of attention_0, mlp_0, attention_1, in this order."""
    edits = condition(np.array([row]))
    return [edits[site](x) if site in edits else x for site, x in zip(SITES, writes, strict=False)][-1]


def test_the_deviation_from_the_centre_is_projected_off_at_the_last_position() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    edits = around([9, 1]).off(only([0, 1]), 0, 1, knocked=0)(np.array([8]))  # row 8: b, part 0
    assert list(edits) == [MLP_0]
    assert edits[MLP_0](x).tolist() == [[[1, 2], [3, 1]]]  # 4 - (4 - 1); the first component of the centre is no matter
    assert x.tolist() == [[[1, 2], [3, 4]]]


AT_ATTENTION_1 = np.zeros((4, 2, 2, 2, 2), np.float32)
AT_ATTENTION_1[:, :, 1, 0] = [0, 1]
X = torch.tensor([[[3.0, 4.0]]])


def test_a_write_is_taken_by_itself() -> None:
    assert written(around([0, 1]).off(AT_ATTENTION_1, 0, 2), 8, X, X, X).tolist() == [[[3, 0]]]


def test_together_all_that_has_been_written_since_the_start_is_taken_off() -> None:
    study = around([0, 1])
    assert written(study.off(AT_ATTENTION_1, 0, 2, together=True), 8, X, X, X).tolist() == [[[3, 4 - (3 * 4 - 1)]]]
    assert written(study.off(AT_ATTENTION_1, 1, 2, together=True), 8, X, X, X).tolist() == [[[3, 0]]]


def test_what_has_been_taken_off_is_not_taken_off_again() -> None:
    always = np.zeros((4, 2, 2, 2, 2), np.float32)
    always[..., 1] = 1
    off = around([0, 0]).off(always, 0, 2, together=True)
    assert written(off, 8, X, X, X).tolist() == [[[3, 0]]]
    edits = off(np.array([8]))
    for _ in range(2):  # every pass begins anew
        assert [edits[site](X).tolist() for site in SITES] == [[[[3, 0]]]] * 3


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("w", [[1, 0], [0, 1], [0.6, 0.8]])
def test_the_topic_of_a_prompt_is_left_alone(w: list[float], together: bool) -> None:
    topic = torch.tensor([[[2.0, -5.0]]])
    off = around([2, -5]).off(only(w), 0, 1, knocked=0, together=together)
    torch.testing.assert_close(written(off, 8, 0 * topic, topic), topic)


def test_each_part_has_its_own_directions_and_centres() -> None:
    study = around([0, 1])
    of_part_0 = study.off(only([0, 1], part=0), 0, 1)
    assert written(of_part_0, 8, X, X).tolist() == [[[3, 1]]]
    assert of_part_0(np.array([9])) == {}  # in part 1, which has no direction
    both = of_part_0(np.array([8, 9]))[MLP_0](X.expand(2, 1, 2))
    assert both.tolist() == [[[3, 1]], [[3, 4]]]
    assert written(study.off(only([0, 1]), 0, 1), 9, X, X).tolist() == [[[3, 0]]]  # its centre is zero


def test_by_halves_the_parts_are_the_contrasts_own() -> None:
    study = two_mechanisms()
    assert study.part.tolist() == [0, 1, 2, 3] * 2
    assert study.by_halves().part.tolist() == [0, 0, 1, 1] * 2
    assert study.by_halves().centres.shape[0] == 2
    assert study.centres.shape[0] == 4


def test_noise_in_the_means_does_not_look_like_a_mechanism_of_its_own() -> None:
    # All write the same direction when they refuse, under noise that 4 prompts a mean leave large: T is 1.
    rng = np.random.default_rng(0)
    category, refused, half = (np.tile(flags, 4) for flags in ([0] * 8 + [1] * 8, [1, 1, 0, 0] * 4, HALF))
    own, other = [], []
    for _ in range(40):
        writes = rng.standard_normal((64, 2, 2, 100)).astype(np.float32)
        writes[refused == 1, 0, 1, 0] += 4
        study = KnockOuts(two_mechanisms().chat, contrast(category, refused, half, writes=writes), [0])
        directions = unit(study.fit.difference(study.contrast.writes))
        x = torch.from_numpy(writes[study.rows, None, 0, 1])
        for knocked in (0, 1):
            changed = study.off(directions, 0, 1, knocked=knocked)(study.rows)[MLP_0](x)
            fall = (x - changed)[:, 0, 0].numpy()
            own.append(fall[study.category == knocked].mean())
            other.append(fall[study.category != knocked].mean())
    assert np.mean(other) / np.mean(own) == pytest.approx(1, abs=0.05)


def test_only_the_blocks_from_start_to_before_stop_are_changed() -> None:
    study = two_mechanisms()
    directions = np.ones((4, 2, 2, 2, 2), np.float32)
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


def test_divergence_is_measured_on_complied_prompts() -> None:
    study = two_mechanisms()
    assert study.divergence(study.off(only([1, 0]), 0, 1)) == pytest.approx(np.zeros(8))  # they deviate in nothing
    # Complied prompts of b at the centre 0 instead of (0, 1): m from 4 to 2; KL = p log(p / q) + (1 - p) log(...).
    study.centres[:] = 0
    p, q = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-2))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert study.divergence(study.off(only([0, 1]), 0, 1)) == pytest.approx([0] * 4 + [expected] * 4, abs=1e-5)
