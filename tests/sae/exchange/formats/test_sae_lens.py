"""SAELens' layout. The files are made by hand here, as its 6.54 writes them; test_peers.py has real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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
NORMS = np.linalg.norm(W["W_dec"], axis=1)


def saved(folder: Path, tensors: dict[str, np.ndarray] | None = None, **cfg: Any) -> Path:
    folder.mkdir()
    save_file(W | (tensors or {}), folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.5.hook_resid_post"}
    written = {"d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "architecture": "topk", "k": K} | cfg
    (folder / "cfg.json").write_text(json.dumps({"metadata": metadata, **written}))
    return folder


def test_topk_computes_what_the_weights_say(tmp_path: Path):
    sae = read_sae(saved(tmp_path / "a"))
    assert gap(reconstruct(sae, X), reference.decode(reference.topk(PRE, K), W)) < 1e-6


def test_it_says_what_it_was_trained_on(tmp_path: Path):
    assert read(saved(tmp_path / "a")).origin == Origin("gpt2", "residuals_5")
    assert read(saved(tmp_path / "b", metadata={"hook_name": "blocks.5.hook_mlp_in"})).origin == Origin(None, None)


def test_rescaling_by_the_decoders_norms_is_honoured(tmp_path: Path):
    codes = reference.topk(PRE * NORMS, K)
    sae = read_sae(saved(tmp_path / "a", rescale_acts_by_decoder_norm=True))
    assert gap(reconstruct(sae, X), reference.decode(codes / NORMS, W)) < 1e-6
    assert not np.array_equal(codes > 0, reference.topk(PRE, K) > 0)  # so it does matter here


def test_an_encoder_that_reads_x_itself_is_honoured(tmp_path: Path):
    sae = read_sae(saved(tmp_path / "a", apply_b_dec_to_input=False))
    codes = reference.topk(reference.pre_codes(X, W, centred=False), K)
    assert gap(reconstruct(sae, X), reference.decode(codes, W)) < 1e-6


@pytest.mark.parametrize("centred", [True, False])
def test_jumprelu_gated_and_standard_compute_what_the_weights_say(tmp_path: Path, centred: bool):
    threshold, more = np.linspace(-0.1, 1, D_SAE, dtype=np.float32), reference.gate(D_SAE)
    pre = reference.pre_codes(X, W, centred=centred)
    for name, tensors, codes in (
        ("jumprelu", {"threshold": threshold}, reference.jumprelu(pre, threshold)),
        ("standard", {}, np.maximum(pre, 0)),
        ("gated", more, reference.gated(X, W, more, centred=centred)),
    ):
        sae = read_sae(saved(tmp_path / name, tensors, architecture=name, apply_b_dec_to_input=centred))
        assert gap(reconstruct(sae, X), reference.decode(codes, W)) < 1e-6


def test_checkpoints_of_batch_topk_have_a_threshold_for_rescaled_codes(tmp_path: Path):
    tensors, codes = {"topk_threshold": np.array(0.7)}, reference.jumprelu(PRE * NORMS, 0.7)
    options = {"rescale_acts_by_decoder_norm": True, "matryoshka_widths": [6, 12]}
    for name in ("batchtopk", "matryoshka_batchtopk"):
        sae = read_sae(saved(tmp_path / name, tensors, architecture=name, **options))
        assert gap(reconstruct(sae, X), reference.decode(codes / NORMS, W)) < 1e-6
    assert isinstance(sae, Matryoshka)
    assert sae.prefixes == [0.25, 0.5, 1.0]


def test_files_from_before_6_0_are_read(tmp_path: Path):
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "metadata": {}}
    folder = saved(tmp_path / "a", **old, k=99, hook_name="blocks.2.hook_mlp_out", model_name="tiny")
    assert gap(reconstruct(read_sae(folder), X), reference.decode(reference.topk(PRE, K), W)) < 1e-6
    assert read(folder).origin == Origin("tiny", "mlp_2")


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"normalize_activations": "layer_norm"}, r"cfg\.json: normalize_activations='layer_norm' cannot be honoured"),
        ({"normalize_activations": "expected_average_only_in"}, "cannot be honoured"),
        ({"reshape_activations": "hook_z"}, "reshape_activations='hook_z' cannot be honoured"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor=True cannot be honoured"),
        ({"activation_fn": "tanh-relu"}, "activation_fn='tanh-relu' cannot be honoured"),
        ({"architecture": "temporal"}, "the architecture 'temporal' is none of ours; those are .*topk"),
        ({"d_sae": 23}, r"sae_weights\.safetensors: W_enc has the shape \[6, 24\], not \[6, 23\]"),
        ({"k": 0}, "k=0 must be from 1"),
    ],
)
def test_what_is_none_of_ours_is_refused_in_one_line(tmp_path: Path, cfg: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message) as error:
        read_sae(saved(tmp_path / "a", **cfg))
    assert "\n" not in str(error.value)


def test_what_is_written_has_saelens_names_and_settings(tmp_path: Path):
    sae = TopK(D_MODEL, D_SAE, K)
    sae.scale.fill_(0.5)
    write_sae(tmp_path / "out", sae, Origin("tiny", "attention_3"), "sae_lens")
    shapes = {name: value.shape for name, value in load_file(tmp_path / "out" / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (6, 24), "b_enc": (24,), "W_dec": (24, 6), "b_dec": (6,)}
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    metadata = cfg.pop("metadata")
    assert (metadata["model_name"], metadata["hook_name"]) == ("tiny", "blocks.3.hook_attn_out")
    assert cfg == {
        "architecture": "topk",
        "d_in": 6,
        "d_sae": 24,
        "k": 3,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
    }
