"""The benchmarks of the autoencoders: they run, and their rows are what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.contestants import NOISE, SEED, Rows
from benchmarks.ours import recipe_of
from refusal.sae.build import build

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _run(script: str, folder: Path, *arguments: str) -> Any:
    """Run a script without peers, and return the JSON that it writes."""
    out = folder / "result.json"
    environment = {name: value for name, value in os.environ.items() if name != "REFUSAL_PEERS_PYTHON"}
    command = [sys.executable, str(BENCHMARKS / script), "--fast", "--json", str(out), *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def test_a_step_is_timed_against_the_matrix_product_alone(tmp_path: Path):
    (result,) = _run("sae_step.py", tmp_path, "--rounds", "2")
    contestants = result["contestants"]
    assert set(contestants) == {"gemm", "ours", "ours_with_dead"}
    for own in contestants.values():
        assert len(own["turns_ms"]) == 2
        assert own["ms"] == min(own["turns_ms"]) > 0
        assert own["peak_mb"] > own["growth_mb"] > 0
        assert own["versions"]["torch"] == torch.__version__


def test_quality_is_measured_of_ours_and_of_each_architecture(tmp_path: Path):
    result = _run("sae_quality.py", tmp_path, "--architectures", "topk", "batch_topk")
    assert 0 < result["fvu"]["ours"]["best"] < 1
    assert set(result["recovery"]) == {"topk", "batch_topk"}
    assert all(0 < one["cosine"] <= 1 for one in result["recovery"].values())


def test_the_whole_training_takes_turns_with_its_bare_steps(tmp_path: Path):
    (result,) = _run("sae_loop.py", tmp_path, "--turns", "2")
    assert {way: len(seconds) for way, seconds in result["turns"].items()} == {"bare": 2, "memory": 2, "disk": 2}
    for way, ratio in result["ratio"].items():
        assert ratio == pytest.approx(sum(result["turns"][way]) / sum(result["turns"]["bare"]))


def test_rows_have_unit_mean_square_of_which_five_percent_is_noise():
    rows = Rows(64, 1, 2)  # what lies outside of its two directions is noise
    x = rows.batch(8192)
    assert float(x.square().mean()) == pytest.approx(1.0, rel=0.02)
    basis = torch.linalg.qr(rows.directions.T).Q
    assert float((x - x @ basis @ basis.T).square().sum() / len(x) / 62) == pytest.approx(NOISE, rel=0.02)


def test_the_same_seed_gives_the_same_rows():
    assert torch.equal(Rows(16, 2, 32).batch(8), Rows(16, 2, 32).batch(8))


def test_first_weights_do_not_begin_with_the_directions_of_the_rows():
    # both are normal numbers from a generator: with one seed they are equal, and nothing is left to learn
    sae = build(recipe_of("topk", d_model=64, d_sae=128, k=4, batch=32, seed=SEED), 64)
    cosines = Rows(64, 4, 128).directions @ sae.W_dec.detach().T
    assert float(cosines.abs().max()) < 0.9
