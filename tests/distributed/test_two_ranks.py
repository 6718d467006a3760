"""Two processes that share each batch train the autoencoders that one process trains.

They add up the same numbers in another order, so that weights differ in the last digits: by up to 1e-4 of a decoder's
row, which has length 1, after 30 steps.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file

from refusal import InputError
from refusal.activations.store import ActivationStore
from refusal.artifacts import read_json
from refusal.sae.recipe import Recipe
from refusal.sae.training.train import Job
from tests.sae.conftest import OTHER_SITE, RECIPE, SITE, store
from tests.sae.training.test_train import TRAINER, train_all

__all__ = ["store"]  # the fixture
SHARED = {**TRAINER, "devices": "2", "strategy": "ddp_spawn"}
TOLERANCE = 1e-4
RECIPE_OF_30 = replace(RECIPE, epochs=2, dead_after_rows=300)


def _train(store: ActivationStore, folder: Path, recipe: Recipe = RECIPE_OF_30, **change: Any) -> list[Path]:
    jobs = [Job(site, 0, folder / site, site) for site in (SITE, OTHER_SITE)]
    train_all(store, recipe, jobs, checkpoints=folder / ".checkpoints", **change)
    return [job.folder for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["topk.TopK", "batch_topk.BatchTopK"])
def test_two_processes_train_what_one_does(store: ActivationStore, tmp_path: Path, kind: str):
    recipe = replace(RECIPE_OF_30, target=f"refusal.sae.architectures.{kind}")
    alone = _train(store, tmp_path / "alone", recipe, logger=CSVLogger(tmp_path, name="logs", version="alone"))
    logger = CSVLogger(tmp_path, name="logs", version="shared")
    shared = _train(store, tmp_path / "shared", recipe, trainer=SHARED, logger=logger)
    for one, other in zip(alone, shared, strict=True):
        weights = [load_file(folder / "sae.safetensors") for folder in (one, other)]
        for name in weights[0]:
            torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=TOLERANCE)
        histories = [read_json(folder / "history.json") for folder in (one, other)]
        assert len(histories[0]["train"]) == 30
        for point, counterpart in zip(*(history["train"] for history in histories), strict=True):
            assert counterpart == pytest.approx(point, rel=1e-3)
        assert max(point["dead_features"] for point in histories[0]["train"]) > 0
        assert histories[1]["heldout"]["all"]["fvu"] == pytest.approx(histories[0]["heldout"]["all"]["fvu"], rel=1e-3)
    logger.save()
    curves = [(tmp_path / "logs" / name / "metrics.csv").read_text() for name in ("alone", "shared")]
    assert len(curves[1].splitlines()) == 1 + 30 + 2  # header, steps, and each autoencoder's held-out figures


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_one_line(
    store: ActivationStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError, match=r"^the training of mlp_1 diverged at step \d+ with sae.lr=1e\+38; lower it$"):
        _train(store, tmp_path, replace(RECIPE_OF_30, lr=1e38), trainer=SHARED)
    assert capfd.readouterr() == ("", "")
