"""The layouts of Gemma Scope and Gemma Scope 2. The files are made by hand here: no published one could be had."""

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

D_MODEL, D_SAE = 6, 24
W = reference.weights(D_MODEL, D_SAE)
X = reference.rows(D_MODEL)
THRESHOLD = np.linspace(0.1, 1, D_SAE, dtype=np.float32)


def published(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{**W, "threshold": THRESHOLD, **arrays})  # type: ignore[arg-type]
    return folder


def test_it_computes_what_the_weights_say_without_subtracting_b_dec(tmp_path: Path):
    folder = published(tmp_path / "layer_20" / "width_16k" / "average_l0_71")
    codes = reference.jumprelu(reference.pre_codes(X, W, centred=False), THRESHOLD)
    for path in (folder, folder / "params.npz"):
        assert gap(reconstruct(read_sae(path), X), reference.decode(codes, W)) < 1e-6


def test_it_is_known_by_its_file_and_does_not_say_of_what_it_is(tmp_path: Path):
    folder = published(tmp_path / "a")
    assert format_of(folder).name == "gemma_scope"
    assert read(folder).origin == Origin(None, None)


def test_half_precision_is_read(tmp_path: Path):
    half = {name: value.astype(np.float16) for name, value in W.items()}
    rounded = {name: value.astype(np.float32) for name, value in half.items()}
    codes = reference.jumprelu(reference.pre_codes(X, rounded, centred=False), THRESHOLD)
    found = reconstruct(read_sae(published(tmp_path / "a", **half)), X)
    assert gap(found, reference.decode(codes, rounded)) < 1e-6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"threshold": THRESHOLD[:5]}, r"params\.npz: threshold has the shape \[5\], not \[24\]"),
        ({"W_dec": W["W_dec"][:, :5]}, r"params\.npz: W_dec has the shape \[24, 5\], not \[24, 6\]"),
        ({"W_enc": W["b_enc"]}, "W_enc has the shape .24., and is no matrix"),
        ({"b_dec": np.full(D_MODEL, np.nan)}, "b_dec has values that are not finite"),
        ({"b_enc": np.array([{}], dtype=object)}, "holds more than arrays, which is never loaded"),
        ({"b_enc": np.array(["a"] * D_SAE)}, "holds more than arrays"),
    ],
)
def test_what_is_none_is_refused_in_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    with pytest.raises(InputError, match=message) as error:
        read_sae(published(tmp_path / "a", **arrays))
    assert "\n" not in str(error.value)


def test_a_damaged_or_incomplete_file_is_one_line(tmp_path: Path):
    folder = published(tmp_path / "a")
    path = folder / "params.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"params\.npz is damaged"):
        read_sae(folder)
    np.savez(path, W_enc=W["W_enc"])
    with pytest.raises(InputError, match=r"params\.npz lacks the tensor 'b_enc'; it has: W_enc"):
        read_sae(folder)


# --- the second -----------------------------------------------------------------------------------------


def second(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    small = {name.replace("W", "w"): value for name, value in W.items()}
    save_file({**small, "threshold": THRESHOLD}, folder / "params.safetensors")
    said = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-1b-it",
        "hf_hook_point_in": "model.layers.7.output",
    }
    (folder / "config.json").write_text(json.dumps(said | settings))
    return folder


def test_the_second_computes_the_same_and_says_of_what_it_is(tmp_path: Path):
    found, origin = read(second(tmp_path / "two"))
    assert np.array_equal(reconstruct(found, X), reconstruct(read_sae(published(tmp_path / "one")), X))
    assert origin == Origin("google/gemma-3-1b-it", "residuals_7")
    mlp = "model.layers.3.post_feedforward_layernorm.output"
    assert read(second(tmp_path / "mlp", hf_hook_point_in=mlp)).origin.site == "mlp_3"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hf_hook_point_out": "model.layers.7.mlp.output"}, "hf_hook_point_out=.* cannot be honoured: a transcoder"),
        ({"hf_hook_point_in": "model.layers.7.self_attn.o_proj.input"}, "cannot be honoured: the heads' outputs"),
        ({"architecture": "topk"}, "architecture='topk' cannot be honoured"),
    ],
)
def test_what_is_none_of_ours_in_the_second_is_refused(tmp_path: Path, settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        read_sae(second(tmp_path / "a", **settings))
