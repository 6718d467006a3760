"""dictionary_learning's layout. The files are made by hand here, as its 0.1 names them; test_peers.py has real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refusal import InputError
from refusal.sae.architectures.matryoshka import Matryoshka
from refusal.sae.architectures.topk import TopK
from refusal.sae.exchange.formats import Origin, read, read_sae, write_sae
from tests.sae.exchange.formats import reference
from tests.sae.exchange.formats.compare import gap, reconstruct

D_MODEL, D_SAE, K = 6, 24, 3
W = reference.weights(D_MODEL, D_SAE)
X = reference.rows(D_MODEL)
PRE = reference.pre_codes(X, W)
LINEAR = {"encoder.weight": W["W_enc"].T, "encoder.bias": W["b_enc"], "decoder.weight": W["W_dec"].T}


def saved(folder: Path, dict_class: str, tensors: dict[str, np.ndarray], **trainer: Any) -> Path:
    folder.mkdir()
    named = {name: torch.from_numpy(np.array(value, order="C")) for name, value in tensors.items()}
    torch.save(named, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": dict_class, **trainer}}))
    return folder


def topk(folder: Path, **trainer: Any) -> Path:
    scalars = {"k": np.array(K, np.int32), "threshold": np.array(-1.0, np.float32)}
    said = {"k": K, "lm_name": "EleutherAI/pythia-70m", "submodule_name": "resid_post_layer_3"} | trainer
    return saved(folder, "AutoEncoderTopK", LINEAR | scalars | {"b_dec": W["b_dec"]}, **said)


def test_topk_computes_what_the_weights_say(tmp_path: Path):
    sae = read_sae(topk(tmp_path / "a"))
    assert gap(reconstruct(sae, X), reference.decode(reference.topk(PRE, K), W)) < 1e-6


def test_batch_topk_has_one_threshold_for_all(tmp_path: Path):
    tensors = LINEAR | {"b_dec": W["b_dec"], "k": np.array(K, np.int32)}
    for name, threshold, used in (("set", 0.7, 0.7), ("unset", -1.0, 0.0)):
        folder = saved(tmp_path / name, "BatchTopKSAE", tensors | {"threshold": np.array(threshold, np.float32)}, k=K)
        expected = reference.decode(reference.jumprelu(PRE, used), W)
        assert gap(reconstruct(read_sae(folder), X), expected) < 1e-6


def test_matryoshka_keeps_its_groups(tmp_path: Path):
    scalars = {"k": np.array(K, np.int32), "threshold": np.array(0.7, np.float32), "group_sizes": np.array([6, 6, 12])}
    sae = read_sae(saved(tmp_path / "a", "MatryoshkaBatchTopKSAE", W | scalars, k=K))
    assert gap(reconstruct(sae, X), reference.decode(reference.jumprelu(PRE, 0.7), W)) < 1e-6
    assert isinstance(sae, Matryoshka)
    assert sae.prefixes == [0.25, 0.5, 1.0]


def test_jumprelu_reads_x_itself(tmp_path: Path):
    threshold = np.linspace(0.1, 1, D_SAE, dtype=np.float32)
    sae = read_sae(saved(tmp_path / "a", "JumpReluAutoEncoder", W | {"threshold": threshold}))
    codes = reference.jumprelu(reference.pre_codes(X, W, centred=False), threshold)
    assert gap(reconstruct(sae, X), reference.decode(codes, W)) < 1e-6


def test_the_plain_ones_differ_in_what_their_encoder_reads(tmp_path: Path):
    old = read_sae(saved(tmp_path / "a", "AutoEncoder", LINEAR | {"bias": W["b_dec"]}))
    assert gap(reconstruct(old, X), reference.decode(np.maximum(PRE, 0), W)) < 1e-6
    new = read_sae(saved(tmp_path / "b", "AutoEncoderNew", LINEAR | {"decoder.bias": W["b_dec"]}))
    codes = np.maximum(reference.pre_codes(X, W, centred=False), 0)
    assert gap(reconstruct(new, X), reference.decode(codes, W)) < 1e-6


def test_gated_has_a_path_for_the_gate_and_one_for_the_magnitude(tmp_path: Path):
    more = reference.gate(D_SAE)
    named = {"gate_bias": more["b_gate"], "mag_bias": more["b_mag"], "r_mag": more["r_mag"], "decoder_bias": W["b_dec"]}
    linear = {name: value for name, value in LINEAR.items() if name != "encoder.bias"}
    sae = read_sae(saved(tmp_path / "a", "GatedAutoEncoder", linear | named))
    assert gap(reconstruct(sae, X), reference.decode(reference.gated(X, W, more), W)) < 1e-6


def test_it_says_what_it_was_trained_on(tmp_path: Path):
    assert read(topk(tmp_path / "a")).origin == Origin("EleutherAI/pythia-70m", "residuals_3")
    assert read(topk(tmp_path / "b", submodule_name="embed", lm_name=None)).origin == Origin(None, None)


@pytest.mark.parametrize("damage", ["cut", "pickle", "list"])
def test_what_is_no_plain_dict_of_tensors_is_not_unpickled(tmp_path: Path, damage: str):
    folder = topk(tmp_path / "a")
    path = folder / "ae.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        torch.save({"encoder.weight": Path("/")} if damage == "pickle" else [1], path)
    with pytest.raises(
        InputError, match=r"ae\.pt (is damaged, or holds more than tensors|does not hold named)"
    ) as error:
        read_sae(folder)
    assert "\n" not in str(error.value)


def test_an_unknown_class_and_a_missing_tensor_are_refused_in_one_line(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"config\.json: the dict_class 'IdentityDict' is none of ours; those are Auto"
    ):
        read_sae(saved(tmp_path / "a", "IdentityDict", LINEAR))
    with pytest.raises(InputError, match=r"ae\.pt lacks the tensor 'b_dec'; it has: decoder\.weight, encoder\.bias"):
        read_sae(saved(tmp_path / "b", "AutoEncoderTopK", LINEAR, k=K))
    with pytest.raises(InputError, match=r"config\.json: k=4 cannot be honoured: .*ae\.pt says 3"):
        read_sae(topk(tmp_path / "c", k=4))


def test_what_is_written_has_its_names_and_settings(tmp_path: Path):
    sae = TopK(D_MODEL, D_SAE, K)
    sae.scale.fill_(0.5)
    write_sae(tmp_path / "out", sae, Origin("tiny", "residuals_3"), "dictionary_learning")
    tensors = torch.load(tmp_path / "out" / "ae.pt", weights_only=True)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "encoder.weight": (24, 6),
        "encoder.bias": (24,),
        "decoder.weight": (6, 24),
        "b_dec": (6,),
        "k": (),
        "threshold": (),
    }
    assert (tensors["k"].dtype, int(tensors["k"]), float(tensors["threshold"])) == (torch.int32, 3, -1.0)
    trainer = json.loads((tmp_path / "out" / "config.json").read_text())["trainer"]
    assert trainer.pop("refusal_version")
    assert trainer == {
        "dict_class": "AutoEncoderTopK",
        "activation_dim": 6,
        "dict_size": 24,
        "k": 3,
        "lm_name": "tiny",
        "layer": 3,
        "submodule_name": "resid_post_layer_3",
    }
