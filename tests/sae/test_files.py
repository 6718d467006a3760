"""An autoencoder that was saved is the same when it is loaded; anything else is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from refusal import InputError
from refusal.models.sites import Site
from refusal.sae.architectures.topk import TopK
from refusal.sae.files import load_sae, save_sae


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sae = TopK(8, 32, 2, seed=3)
    sae.fit_units(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)) + 5)
    save_sae(tmp_path / "sae", sae, model="tiny", site=Site("mlp", 3), cfg={"fingerprint": "abc"})
    return tmp_path / "sae"


def test_it_comes_back_the_same(folder: Path):
    sae, expected = load_sae(folder, model="tiny", site="mlp_3"), TopK(8, 32, 2, seed=3)
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)) + 5
    expected.fit_units(x)
    assert isinstance(sae, TopK)
    assert (sae.d_model, sae.d_sae, sae.k) == (8, 32, 2)
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    assert torch.equal(sae.encode(x), expected.encode(x))
    assert torch.equal(sae.decode(sae.encode(x)), expected.decode(expected.encode(x)))


def test_the_files_say_what_they_hold(folder: Path):
    cfg = json.loads((folder / "cfg.json").read_text())
    scale = cfg.pop("scale")
    assert cfg == {
        "fingerprint": "abc",
        "architecture": "refusal.sae.architectures.topk.TopK",
        "d_model": 8,
        "d_sae": 32,
        "k": 2,
        "dtype": "float32",
        "model": "tiny",
        "site": "mlp_3",
    }
    tensors = load_file(folder / "sae.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"W_enc": (8, 32), "b_enc": (32,), "W_dec": (32, 8), "b_dec": (8,), "scale": ()}
    assert scale == pytest.approx(float(tensors["scale"]))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [({"model": "other"}, "model tiny, not other"), ({"site": Site("mlp", 4)}, "site mlp_3, not mlp_4")],
)
def test_one_of_another_model_or_site_is_refused(folder: Path, wanted: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        load_sae(folder, **wanted)


@pytest.mark.parametrize("keep", [0, 5, 100, 900])
def test_a_file_cut_short_is_refused(folder: Path, keep: int):
    path = folder / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"sae.safetensors is damaged .*train again") as error:
        load_sae(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sae.safetensors", "cfg.json"])
def test_a_missing_file_is_refused(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"there is no .*{name}"):
        load_sae(folder)


def test_tensors_of_another_shape_or_not_finite_are_refused(folder: Path):
    path = folder / "sae.safetensors"
    good = load_file(path)
    for name, value, message in (
        ("W_dec", good["W_dec"][:31].clone(), r"W_dec has shape \[31, 8\], not \[32, 8\]"),
        ("b_enc", good["b_enc"] * torch.nan, "b_enc has values that are not finite"),
    ):
        save_file({**good, name: value}, path)
        with pytest.raises(InputError, match=message):
            load_sae(folder)
    save_file({name: value for name, value in good.items() if name != "W_enc"}, path)
    with pytest.raises(InputError, match="W_enc is missing"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 33}, "sae.k=33 must be from 1"),
        ({"k": "many"}, "does not describe an autoencoder"),
        (
            {"architecture": "refusal.sae.architectures.topk.Missing"},
            "there is no autoencoder 'refusal.sae.architectures.topk.Missing'",
        ),
        ({"architecture": "torch.nn.Linear"}, "'torch.nn.Linear' is not a SparseAutoencoder"),
        ({"architecture": "TopK"}, "there is no autoencoder 'TopK'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(folder: Path, change: dict[str, Any], message: str):
    path = folder / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        load_sae(folder)


def test_a_configuration_that_is_no_object_is_refused(folder: Path):
    for content in ("[]", "{}", "{"):
        (folder / "cfg.json").write_text(content)
        with pytest.raises(InputError, match=r"cfg\.json"):
            load_sae(folder)
