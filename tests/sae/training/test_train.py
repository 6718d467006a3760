"""Training from a store to files on disk: quality, determinism, silence, and everything that can go wrong."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file

from refusal import InputError
from refusal.activations.samplers import Stratum, uniform, weighted
from refusal.activations.store import ActivationStore
from refusal.artifacts import publish, read_json
from refusal.sae.files import load_sae
from refusal.sae.quality.heldout import measure
from refusal.sae.recipe import Recipe
from refusal.sae.training.side_by_side import SideBySide
from refusal.sae.training.train import Job, n_steps, train_saes
from tests.sae.conftest import PROMPTS, ROWS_PER_PROMPT, SITE

N_ROWS = PROMPTS * ROWS_PER_PROMPT  # of a shard that train; those of other kinds come after
TRAINER = {"accelerator": "cpu", "devices": "1", "precision": "32-true", "strategy": "auto", "num_nodes": 1}


def _train(store: ActivationStore, recipe: Recipe, folder: Path, **change: Any) -> dict[str, Any]:
    """Train one autoencoder into a folder."""
    job = Job(change.pop("site", SITE), recipe.seed, folder, SITE, change.pop("cfg", {}))
    (result,) = train_all(store, recipe, [job], checkpoints=folder.with_name(".checkpoints"), **change)
    return result


def train_all(store: ActivationStore, recipe: Recipe, jobs: Sequence[Job], **change: Any) -> list[dict[str, Any]]:
    """Train autoencoders side by side."""
    options = {"sampler": uniform.weights, "order_seed": 0, "last_fraction": 0.25, "kinds": ["instruction"]}
    return train_saes(store, jobs, recipe, **{**options, "trainer": TRAINER, "model": "tiny", **change})


def test_a_training_explains_held_out_rows_and_writes_everything(
    store: ActivationStore, recipe: Recipe, tmp_path: Path
):
    result = _train(store, recipe, tmp_path, cfg={"fingerprint": "abc"})
    # 4 of 6 shards train: 960 rows, 10 epochs, batches of 64
    assert (result["steps"], result["rows"]) == (150, 9600)
    assert result["all"]["n_rows"] == 480
    assert result["last"]["n_rows"] == 60
    for part in ("all", "last"):
        assert result[part]["fvu"] < 0.15
        assert 1 - result[part]["fvu"] <= result[part]["explained_variance"] < 1
        assert 1 < result[part]["l0"] <= 3
    sae = load_sae(tmp_path, model="tiny", site=SITE)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
    cfg = read_json(tmp_path / "cfg.json")
    assert cfg["fingerprint"] == "abc"
    assert cfg["training"]["lr"] == recipe.lr
    history = read_json(tmp_path / "history.json")
    assert history["heldout"] == {part: result[part] for part in ("all", "last", "splits", "categories")}
    assert [point["step"] for point in history["train"]] == list(range(150))
    assert history["train"][-1]["rows"] == 9600
    assert history["train"][-1]["loss"] < 0.25 * history["train"][0]["loss"]
    assert (tmp_path / "training_plots" / "training.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_measured_is_what_was_written(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    result = _train(store, recipe, tmp_path)
    again = measure(load_sae(tmp_path), store, SITE, ["last", "instruction"])
    assert again == {part: result[part] for part in again}
    x = torch.cat([torch.from_numpy(store.read_rows(s, SITE, 0, N_ROWS)) for s in store.shards if s.fold == "heldout"])
    sae = load_sae(tmp_path)
    residue = (x - sae.decode(sae.encode(x))).square().sum() / (x - x.mean(0)).square().sum()
    assert result["all"]["fvu"] == pytest.approx(float(residue), rel=1e-3)


def test_two_trainings_give_the_same_bits_and_another_seed_others(
    store: ActivationStore, recipe: Recipe, tmp_path: Path
):
    short = replace(recipe, epochs=2, dead_after_rows=200)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(files))  # the global generators have no say
        np.random.seed(len(files))  # noqa: NPY002
        _train(store, replace(short, seed=seed), tmp_path / name)
        files.append(load_file(tmp_path / name / "sae.safetensors"))
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    assert not torch.equal(files[0]["W_dec"], files[2]["W_dec"])
    assert (tmp_path / "a" / "history.json").read_bytes() == (tmp_path / "b" / "history.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({}, 150),
        ({"max_rows": 130}, 3),
        ({"epochs": 1, "batch_size": 1000}, 1),
        ({"max_rows": 1}, 1),
        ({"epochs": 3}, 45),
    ],
)
def test_the_number_of_steps_follows_from_rows_and_epochs(recipe: Recipe, change: dict[str, Any], steps: int):
    assert n_steps(replace(recipe, **change), 960) == steps


def test_an_epoch_is_the_rows_that_the_sampler_draws_from(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    def toxic(strata: Sequence[Stratum]) -> np.ndarray:
        return weighted.weights(strata, toxic_fraction=1.0)

    result = _train(store, replace(recipe, epochs=1), tmp_path, sampler=toxic)
    assert result["steps"] == 8  # 480 rows in batches of 64


def test_nothing_is_printed_and_no_warning_is_left(
    store: ActivationStore, recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(store, replace(recipe, epochs=1), tmp_path, trainer={**TRAINER, "enable_progress_bar": True})
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("pytorch_lightning.utilities.rank_zero").level != logging.WARNING


def test_a_logger_gets_the_curves_and_the_heldout_figures(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    logger = CSVLogger(tmp_path, name="logs", version="a")
    result = _train(store, replace(recipe, epochs=1), tmp_path, logger=logger)
    logger.save()
    table = (tmp_path / "logs" / "a" / "metrics.csv").read_text()
    for name in ("train/loss", "train/fvu", "train/l0", "train/dead_features", "heldout/fvu", "heldout_last/l0"):
        assert f"mlp_1/{name}" in table
    assert str(result["all"]["fvu"]) in table


def test_mixed_precision_trains_as_well(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    result = _train(store, recipe, tmp_path, trainer={**TRAINER, "precision": "bf16-mixed", "gradient_clip_val": 1.0})
    assert result["all"]["fvu"] < 0.2


def test_a_training_that_diverges_is_an_error(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    with (
        pytest.raises(InputError, match=r"mlp_1 diverged at step 1 with sae.lr=1e\+38; lower it"),
        publish(tmp_path / "sae", {}) as folder,
    ):
        _train(store, replace(recipe, lr=1e38, epochs=1), folder)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(
    store: ActivationStore, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(self: SideBySide, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(SideBySide, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt), publish(tmp_path / "sae", {}) as folder:
        _train(store, recipe, folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"accelerator": "tpu"}, "trainer options"),
        ({"precision": "7-bit"}, "trainer options.*7-bit"),
        ({"unheard_of": 1}, "trainer options.*unheard_of"),
    ],
)
def test_trainer_options_that_cannot_be_are_one_line(
    store: ActivationStore, recipe: Recipe, tmp_path: Path, trainer: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message) as error:
        _train(store, recipe, tmp_path, trainer={**TRAINER, **trainer})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"k": 65}}, "sae.k=65 must be from 1 to"),
        ({"options": {"k": 8, "kk": 9}}, "cannot be made with .*unexpected keyword argument 'kk'"),
        ({"target": "refusal.sae.architectures.topk.Bottom"}, "there is no autoencoder"),
        ({"batch_size": 0}, "sae.batch_size=0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_one_line(
    store: ActivationStore, recipe: Recipe, tmp_path: Path, change: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        _train(store, replace(recipe, **change), tmp_path)


def test_a_site_that_was_not_collected_is_one_line(store: ActivationStore, recipe: Recipe, tmp_path: Path):
    with pytest.raises(InputError, match="mlp_0 is not in"):
        _train(store, recipe, tmp_path, site="mlp_0")
