from __future__ import annotations

import pytest
from hydra.core.object_type import ObjectType

from refusal.config.sites_source import SitesSource
from tests.commands import Pretended, Runner
from tests.config.test_options import composed


@pytest.mark.parametrize("name", ["residuals_10", "residuals_10-21", "mlp_all", "attention_0"])
def test_every_name_of_a_site_is_a_choice(name: str) -> None:
    layers = composed(f"layers={name}").layers
    assert (layers.names, layers.types) == ([name], None)


def test_a_list_of_names() -> None:
    assert composed("layers.names=[residuals_all,mlp_1]").layers.names == ["residuals_all", "mlp_1"]


def test_a_preset_has_no_names() -> None:
    layers = composed("layers=sparse").layers
    assert (layers.preset, layers.names) == ("sparse", [])


def test_sweeps_over_sites(run: Runner, pipeline: Pretended) -> None:
    result = run("train", "-m", "logger=none", "layers=residuals_1,mlp_2-3", "sae.k=16,32")
    assert result.status == 0, result.err
    told = [(options.layers.names, options.sae.arguments()["k"]) for _, options in pipeline.calls]
    assert told == [(["residuals_1"], 16), (["residuals_1"], 32), (["mlp_2-3"], 16), (["mlp_2-3"], 32)]


def test_the_source_answers_for_sites_only() -> None:
    source = SitesSource("sites", "sites://layers")
    assert source.is_config("layers/mlp_3")
    assert not source.is_config("layers/auto")
    assert not source.is_config("model/mlp_3")
    assert source.list("layers", ObjectType.CONFIG) == ["attention_all", "mlp_all", "residuals_all"]
    assert source.list("", ObjectType.GROUP) == ["layers"]
    with pytest.raises(OSError, match="not found"):
        source.load_config("layers/mpl_3")
