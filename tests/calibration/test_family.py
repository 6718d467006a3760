"""The family is drawn from a seed, has every kind, and leaves enough models whose answer is clear."""

from __future__ import annotations

import json

from refusal.calibration.family import KINDS, draw_family
from refusal.calibration.figures import is_clear
from refusal.comparison.transfer import voting_layers


def test_the_same_seed_draws_the_same_models_and_more_of_them_begin_alike() -> None:
    assert draw_family(3, 20)[:10] == draw_family(3, 10)
    assert draw_family(3, 5) != draw_family(4, 5)


def test_a_family_varies_in_everything_that_it_says() -> None:
    family = draw_family(7, 200)
    assert {member.kind for member in family} == set(KINDS)
    assert {member.n for member in family} == {20, 30, 50, 100, 200}
    assert {len(member.categories) for member in family} == set(range(4, 11))
    assert {member.system_prompt for member in family} == {True, False}
    assert {member.plan.n_layers for member in family} == set(range(5, 11))
    for name in ("d_model", "groups", "decoy", "superposition", "spread", "writers", "joint", "chatter", "noise"):
        assert len({str(getattr(member.plan, name)) for member in family}) > 1, name
    assert any(member.label_noise for member in family)
    assert sum(member.plan.chatter > 0 for member in family) >= 0.4 * len(family)
    assert sum(is_clear(member.truth) for member in family) >= 0.6 * len(family)


def test_every_model_decides_where_blocks_have_a_vote() -> None:
    for member in draw_family(8, 200):
        assert member.plan.deciding.stop <= voting_layers(member.plan.n_layers)


def test_a_member_can_be_written_down() -> None:
    for member in draw_family(0, 20):
        assert json.loads(json.dumps(member.written))["number"] == member.number
