"""Llama Scope's layout. The files are made by hand here, with published settings: no published weights could be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from refusal import InputError
from refusal.sae.exchange.formats import Origin, format_of, read, read_sae
from tests.sae.exchange.formats import reference
from tests.sae.exchange.formats.compare import gap, reconstruct

D_MODEL, D_SAE, NORM = 6, 24, 5.0
S = np.sqrt(D_MODEL) / NORM
W = reference.weights(D_MODEL, D_SAE)
X = reference.rows(D_MODEL) * 2
NORMS = np.linalg.norm(W["W_dec"], axis=1)
SETTINGS: dict[str, Any] = {
    "dtype": "torch.bfloat16",
    "hook_point_in": "blocks.18.hook_mlp_out",
    "hook_point_out": "blocks.18.hook_mlp_out",
    "use_decoder_bias": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "d_model": D_MODEL,
    "d_sae": D_SAE,
    "act_fn": "jumprelu",
    "jump_relu_threshold": 0.7,
    "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": NORM, "out": NORM},
    "sparsity_include_decoder_norm": True,
    "use_glu_encoder": False,
    "top_k": 3,
}


def published(folder: Path, **settings: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    named = {
        "encoder.weight": np.ascontiguousarray(W["W_enc"].T),
        "encoder.bias": W["b_enc"],
        "decoder.weight": np.ascontiguousarray(W["W_dec"].T),
        "decoder.bias": W["b_dec"],
    }
    save_file(named, folder / "checkpoints" / "final.safetensors")
    (folder / "hyperparams.json").write_text(json.dumps(SETTINGS | settings))
    return folder


def scaled_pre_codes(*, centred: bool) -> np.ndarray:
    """Those of x * s, as in its training."""
    return reference.pre_codes(X.astype(np.float64) * S, W, centred=centred)


@pytest.mark.parametrize("centred", [True, False])
def test_jumprelu_sees_scaled_x_and_has_its_threshold_in_the_units_of_x(tmp_path: Path, centred: bool):
    sae = read_sae(published(tmp_path / "a", apply_decoder_bias_to_pre_encoder=centred))
    codes = reference.jumprelu(scaled_pre_codes(centred=centred), 0.7 * S)
    assert 0.05 < (codes > 0).mean() < 0.6
    assert gap(reconstruct(sae, X), reference.decode(codes, W) / S) < 1e-6


def test_topk_ranks_by_what_a_code_adds(tmp_path: Path):
    pre = scaled_pre_codes(centred=False)
    for name, ranked in (("with", NORMS), ("without", np.ones(D_SAE))):
        options = {"act_fn": "topk", "sparsity_include_decoder_norm": name == "with"}
        sae = read_sae(published(tmp_path / name, **options))
        codes = reference.topk(pre * ranked, 3) / ranked
        assert gap(reconstruct(sae, X), reference.decode(codes, W) / S) < 1e-6


def test_weights_that_hold_the_scaling_already_are_taken_as_they_are(tmp_path: Path):
    sae = read_sae(published(tmp_path / "a", norm_activation="inference"))
    codes = reference.jumprelu(reference.pre_codes(X, W, centred=False), 0.7)
    assert gap(reconstruct(sae, X), reference.decode(codes, W)) < 1e-6


def test_a_decoder_may_have_no_bias(tmp_path: Path):
    sae = read_sae(published(tmp_path / "a", use_decoder_bias=False))
    codes = reference.jumprelu(scaled_pre_codes(centred=False), 0.7 * S)
    assert gap(reconstruct(sae, X), codes @ W["W_dec"] / S) < 1e-6


def test_its_settings_say_what_it_was_trained_on(tmp_path: Path):
    folder = published(tmp_path / "a")
    assert format_of(folder).name == "llama_scope"
    assert read(folder).origin == Origin("meta-llama/Llama-3.1-8B", "mlp_18")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hook_point_in": "blocks.18.ln2.hook_normalized"}, r"hook_point_out='blocks.18.hook_mlp_out' cannot be hon"),
        ({"norm_activation": "token-wise"}, "norm_activation='token-wise' cannot be honoured: each x is scaled"),
        ({"use_glu_encoder": True}, "use_glu_encoder=True cannot be honoured"),
        ({"act_fn": "relu"}, "act_fn='relu' cannot be honoured: those that are ours are jumprelu, topk"),
        ({"jump_relu_threshold": -1}, "jump_relu_threshold=-1 is not a number over 0"),
        ({"dataset_average_activation_norm": None}, r"hyperparams\.json lacks the setting 'in'"),
        ({"act_fn": "topk", "top_k": 25}, "k=25 must be from 1"),
    ],
)
def test_what_is_none_of_ours_is_refused_in_one_line(tmp_path: Path, settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message) as error:
        read_sae(published(tmp_path / "a", **settings))
    assert "\n" not in str(error.value)
