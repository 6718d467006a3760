from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations.samplers import Stratum, category_balanced, safe_only, toxic_only, uniform, weighted
from refusal.prompts.prompt import SPLITS

# hate: 100 safe, 20 toxic; privacy: 60 safe, 20 hard, 0 toxic
STRATA = [
    Stratum("hate", "safe", 100),
    Stratum("hate", "toxic", 20),
    Stratum("privacy", "safe", 60),
    Stratum("privacy", "hard", 20),
]
WEIGHTS = [module.weights for module in (weighted, uniform, category_balanced, safe_only, toxic_only)]

strata_lists = st.lists(
    st.builds(Stratum, st.sampled_from(["hate", "privacy", "sexual"]), st.sampled_from(SPLITS), st.integers(0, 10_000)),
    min_size=1,
    max_size=8,
    unique_by=lambda stratum: stratum[:2],
)


@given(strata_lists)
def test_weights_are_shares(strata: list[Stratum]) -> None:
    for weights in WEIGHTS:
        try:
            shares = weights(strata)
        except InputError as error:
            assert "leaves no rows" in str(error)  # noqa: PT017
            continue
        assert shares.shape == (len(strata),)
        assert (shares >= 0).all()
        assert shares.sum() == pytest.approx(1)
        assert all(share == 0 for share, stratum in zip(shares, strata, strict=True) if stratum.rows == 0)


def test_uniform_is_the_share_of_rows() -> None:
    assert uniform.weights(STRATA).tolist() == [0.5, 0.1, 0.3, 0.1]


def test_safe_only_and_toxic_only_leave_the_other_side_out() -> None:
    # 100, 60 and 20 of 180 rows that are not toxic
    np.testing.assert_allclose(safe_only.weights(STRATA), [100 / 180, 0, 60 / 180, 20 / 180])
    assert toxic_only.weights(STRATA).tolist() == [0, 1, 0, 0]


def test_category_balanced_gives_categories_the_same_sum() -> None:
    # hate has 120 rows, privacy 80: half each, by rows inside
    np.testing.assert_allclose(category_balanced.weights(STRATA), [50 / 120, 10 / 120, 30 / 80, 10 / 80])


@given(strata_lists, st.floats(0, 1))
def test_weighted_gives_toxic_rows_the_stated_share(strata: list[Stratum], fraction: float) -> None:
    toxic = np.array([stratum.split == "toxic" for stratum in strata])
    rows = np.array([stratum.rows for stratum in strata])
    assume(rows[toxic].sum() > 0 and rows[~toxic].sum() > 0)
    shares = weighted.weights(strata, toxic_fraction=fraction)
    assert shares[toxic].sum() == pytest.approx(fraction)


def test_weighted_counts_a_category_by_its_weight() -> None:
    # not toxic: hate 100 x 1, privacy (60 + 20) x 3 = 240, of 340; times the half that is not toxic
    shares = weighted.weights(STRATA, toxic_fraction=0.5, category_weights={"privacy": 3})
    np.testing.assert_allclose(shares, [0.5 * 100 / 340, 0.5, 0.5 * 180 / 340, 0.5 * 60 / 340])


def test_weighted_gives_all_to_the_side_that_has_rows() -> None:
    np.testing.assert_allclose(weighted.weights(STRATA[:1], toxic_fraction=0.5), [1])


def test_weighted_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match=r"toxic_fraction=1\.5"):
        weighted.weights(STRATA, toxic_fraction=1.5)
    with pytest.raises(InputError, match=r"no rows of category 'hat'.*hate, privacy"):
        weighted.weights(STRATA, category_weights={"hat": 1})
    with pytest.raises(InputError, match="hate=-1"):
        weighted.weights(STRATA, category_weights={"hate": -1})
    with pytest.raises(InputError, match="leaves no rows"):
        toxic_only.weights(STRATA[:1])
