"""An architecture of one's own: a file with a class and a YAML file, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from refusal.config.catalog import Catalog
from refusal.config.options import from_config, register
from refusal.sae.build import build
from refusal.sae.files import load_sae, save_sae
from refusal.sae.recipe import Recipe
from refusal.study import Study
from tests.commands import ROOT

CLASS = """
from torch import Tensor
from refusal.sae.base import SparseAutoencoder, Step

class Shifted(SparseAutoencoder):
    settings = ("shift",)

    def __init__(self, d_model: int, d_sae: int, *, shift: float, **common: int) -> None:
        super().__init__(d_model, d_sae, **common)
        self.shift = shift

    def activate(self, pre: Tensor) -> Tensor:
        return (pre - self.shift).relu()

    def step(self, batch: Tensor, progress: float) -> Step:
        x = batch * self.scale
        f = self.activate(self.pre_codes(x - self.b_dec))
        error = x - (f @ self.W_dec + self.b_dec)
        self.count_fired(len(x), (f > 0).any(0))
        return Step(error.square().mean(), x, error.detach(), f > 0)
"""
YAML = """# Shifted before it is cut.
defaults:
  - /schema/sae/other@_here_
  - _base

target: own_sae.Shifted
name: shifted
options: {shift: 0.5}
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration folder with one more YAML file; the class can be imported."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "sae" / "shifted.yaml").write_text(YAML)
    (tmp_path / "own_sae.py").write_text(CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "conf"


def _recipe(conf: Path, *overrides: str) -> Recipe:
    register()
    with initialize_config_dir(str(conf), version_base="1.3"):
        options = from_config(compose("train", overrides=["sae=shifted", *overrides]))
    return Recipe(**Study(options).recipe)


def test_it_is_built_trained_saved_and_loaded_like_any_other(conf: Path, rows: Tensor, tmp_path: Path):
    sae = build(_recipe(conf), 16)
    sae.fit_units(rows)
    sae.step(rows, 0.0).loss.backward()
    assert sae.W_enc_rows.grad is not None
    save_sae(tmp_path / "sae", sae, model="tiny", site="mlp_1", cfg={})
    again = load_sae(tmp_path / "sae")
    assert torch.equal(again.encode(rows), sae.encode(rows))


def test_its_options_are_set_on_the_command_line_and_listed_in_the_help(conf: Path):
    assert _recipe(conf).options == {"shift": 0.5}
    assert _recipe(conf, "++sae.options.shift=0.25").options == {"shift": 0.25}
    assert Catalog(conf).options("train")["sae.options"].only_with == ("shifted",)
    assert Catalog(conf).groups["sae"]["shifted"] == "Shifted before it is cut."
