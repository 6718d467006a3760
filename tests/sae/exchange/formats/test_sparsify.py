"""sparsify's layout. The files are made by hand here, as its 1.3 names them; test_peers.py has real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from refusal import InputError
from refusal.sae.architectures.topk import TopK
from refusal.sae.exchange.formats import Origin, read, read_sae, write_sae
from tests.sae.exchange.formats import reference
from tests.sae.exchange.formats.compare import gap, reconstruct

D_MODEL, D_SAE, K = 6, 24, 3
W = reference.weights(D_MODEL, D_SAE)
X = reference.rows(D_MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hook_point(tmp_path / "run" / "layers.7")


def hook_point(folder: Path, **cfg: Any) -> Path:
    folder.mkdir(parents=True)
    named = {"encoder.weight": W["W_enc"].T, "encoder.bias": W["b_enc"], "W_dec": W["W_dec"], "b_dec": W["b_dec"]}
    save_file({name: np.ascontiguousarray(value) for name, value in named.items()}, folder / "sae.safetensors")
    written = {"activation": "topk", "num_latents": D_SAE, "k": K, "d_in": D_MODEL, "expansion_factor": 32, **cfg}
    (folder / "cfg.json").write_text(json.dumps(written))
    return folder


def test_it_computes_what_the_weights_say(folder: Path):
    expected = reference.decode(reference.topk(reference.pre_codes(X, W), K), W)
    assert gap(reconstruct(read_sae(folder), X), expected) < 1e-6


def test_its_folder_and_the_run_above_say_what_it_was_trained_on(folder: Path):
    assert read(folder).origin == Origin(None, "residuals_7")
    (folder.parent / "config.json").write_text('{"model": "meta-llama/Llama-3.1-8B"}')
    assert read(folder).origin == Origin("meta-llama/Llama-3.1-8B", "residuals_7")
    for name, site in {"layers.3.mlp": "mlp_3", "layers.3.attention": "attention_3", "h.2.attn": "attention_2"}.items():
        assert read(hook_point(folder.parent / name)).origin.site == site
    assert read(hook_point(folder.parent / "embed_tokens")).origin.site is None


def test_no_number_of_latents_means_the_expansion_factor(tmp_path: Path):
    assert read_sae(hook_point(tmp_path / "a", num_latents=0, expansion_factor=4)).d_sae == 24


def test_training_by_multi_topk_changes_nothing_in_use(folder: Path, tmp_path: Path):
    other = read_sae(hook_point(tmp_path / "multi", multi_topk=True))
    assert np.array_equal(reconstruct(other, X), reconstruct(read_sae(folder), X))


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"activation": "groupmax"}, r"cfg\.json: activation='groupmax' cannot be honoured"),
        ({"transcode": True}, "transcode=True cannot be honoured: a transcoder predicts another place"),
        ({"skip_connection": True}, "skip_connection=True cannot be honoured"),
        ({"k": 25}, "k=25 must be from 1 to the number of features"),
        ({"k": 2.5}, r"k=2\.5 is not a whole number"),
        ({"num_latents": 25}, r"sae\.safetensors: encoder\.weight has the shape \[24, 6\], not \[25, 6\]"),
    ],
)
def test_what_is_none_of_ours_is_refused_in_one_line(tmp_path: Path, cfg: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message) as error:
        read_sae(hook_point(tmp_path / "a", **cfg))
    assert "\n" not in str(error.value)


def test_what_is_written_has_sparsifys_names_and_settings(tmp_path: Path):
    sae = TopK(D_MODEL, D_SAE, K)
    sae.scale.fill_(0.5)
    write_sae(tmp_path / "out", sae, Origin("tiny", "mlp_3"), "sparsify")
    shapes = {name: value.shape for name, value in load_file(tmp_path / "out" / "sae.safetensors").items()}
    assert shapes == {"encoder.weight": (24, 6), "encoder.bias": (24,), "W_dec": (24, 6), "b_dec": (6,)}
    cfg = json.loads((tmp_path / "out" / "cfg.json").read_text())
    ours = cfg.pop("refusal")
    assert (ours["model"], ours["site"]) == ("tiny", "mlp_3")
    assert cfg == {
        "activation": "topk",
        "expansion_factor": 4,
        "normalize_decoder": False,
        "num_latents": 24,
        "k": 3,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": 6,
    }
    assert read(tmp_path / "out").origin == Origin("tiny", "mlp_3")
