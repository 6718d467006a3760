"""Names of sites, ranges and presets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.models.sites import KINDS, Site, choose, is_site_name, parse_site, preset_layers


def names(*args: object, **kwargs: object) -> list[str]:
    return [str(site) for site in choose(*args, **kwargs)]  # type: ignore[arg-type]


def test_sites_sort_in_the_order_of_computation():
    assert names(["residuals_0", "mlp_0-1", "attention_1", "attention_0"], 2) == [
        "attention_0",
        "mlp_0",
        "residuals_0",
        "attention_1",
        "mlp_1",
    ]


@given(st.sampled_from(KINDS), st.integers(0, 99))
def test_a_name_is_read_back(kind: str, layer: int):
    assert parse_site(str(Site(kind, layer))) == Site(kind, layer)
    assert is_site_name(str(Site(kind, layer)))


def test_all_of_a_kind_and_ranges_count_each_site_once():
    assert names(["mlp_all", "mlp_1", "mlp_0-2"], 3) == ["mlp_0", "mlp_1", "mlp_2"]


@pytest.mark.parametrize(
    ("preset", "n_layers", "expected"),
    [
        ("middle", 32, list(range(10, 22))),
        ("middle", 30, list(range(9, 21))),
        ("middle", 6, list(range(6))),
        ("sparse", 32, [0, 5, 10, 16, 21, 26, 31]),
        ("sparse", 5, list(range(5))),
        ("all", 4, list(range(4))),
    ],
)
def test_presets_follow_the_models_depth(preset: str, n_layers: int, expected: list[int]):
    assert preset_layers(preset, n_layers) == expected


def test_auto_takes_every_site_of_a_shallow_model_and_the_middle_of_a_deep_one():
    assert len(choose([], 8)) == 24
    assert names([], 32) == [f"residuals_{layer}" for layer in range(10, 22)]


def test_types_widen_a_preset():
    assert names([], 2, preset="all", types=["residuals", "mlp"]) == ["mlp_0", "residuals_0", "mlp_1", "residuals_1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("residual_3", "did you mean residuals_3"),
        ("mlp_6", "mlp_0 to mlp_5"),
        ("mlp_5-3", "write mlp_3-5"),
        ("layer7", "name a site such as"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(name: str, message: str):
    with pytest.raises(InputError, match=message):
        choose([name], 6)


def test_an_unknown_preset_or_type_is_answered_with_the_right_ones():
    with pytest.raises(InputError, match="did you mean sparse"):
        choose([], 6, preset="sparce")
    with pytest.raises(InputError, match="did you mean residuals"):
        choose([], 6, types=["residual"])
