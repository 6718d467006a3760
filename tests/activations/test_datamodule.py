from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from refusal.activations.datamodule import ActivationDataModule
from refusal.activations.samplers import weighted
from refusal.activations.store import ActivationStore
from refusal.activations.stream import RowStream
from tests.activations.conftest import SITE


class Recorder(pl.LightningModule):
    """Trains one number, and remembers the rows that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[float]] = []
        self.validated: list[list[float]] = []

    def training_step(self, batch: Tensor, _index: int) -> Tensor:
        self.seen.append(batch[0, :, 0].tolist())
        return self.weight * batch.mean()

    def validation_step(self, batch: Tensor, _index: int) -> None:
        self.validated.append(batch[0, :, 3].tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(store: ActivationStore, folder: Path, resume: Path | None = None, **options: Any) -> Recorder:
    module = Recorder()
    data = ActivationDataModule(store, [SITE], weighted.weights, batch_size=16, n_steps=30, n_heldout=3, seed=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=11, save_top_k=-1)],
            default_root_dir=folder,
            num_sanity_val_steps=0,
            **options,
        )
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module


def expected(store: ActivationStore, n_batches: int) -> list[list[float]]:
    stream = RowStream(store, SITE, weighted.weights, batch_size=16, seed=4)
    return [next(stream)[:, 0].tolist() for _ in range(n_batches)]


def test_training_sees_the_stream_and_no_held_out_row(mixed: ActivationStore, tmp_path: Path) -> None:
    module = fit(mixed, tmp_path)
    assert module.seen == expected(mixed, 30)
    assert len(module.validated) == 3
    assert {stratum for batch in module.validated for stratum in batch} == {6}


def test_a_training_that_resumes_in_the_middle_sees_the_very_next_rows(mixed: ActivationStore, tmp_path: Path) -> None:
    first = fit(mixed, tmp_path)
    second = fit(mixed, tmp_path, tmp_path / "step=11.ckpt")
    assert first.seen[:11] + second.seen == expected(mixed, 30)


def test_held_out_batches_are_the_same_every_time(mixed: ActivationStore, tmp_path: Path) -> None:
    module = fit(mixed, tmp_path, val_check_interval=15)
    assert len(module.validated) == 6
    assert module.validated[:3] == module.validated[3:]


@pytest.mark.parametrize("world", [1, 2])
def test_each_process_gets_its_part(mixed: ActivationStore, world: int) -> None:
    parts = []
    for rank in range(world):
        data = ActivationDataModule(mixed, [SITE], weighted.weights, batch_size=64, n_steps=2, seed=4)
        data.trainer = type("Trainer", (), {"global_rank": rank, "world_size": world})()  # type: ignore[assignment]
        parts.append(next(iter(data.train_dataloader())))
    whole = next(RowStream(mixed, SITE, weighted.weights, batch_size=64, seed=4))
    assert sorted(torch.cat(parts, 1)[0, :, 0].tolist()) == sorted(whole[:, 0].tolist())
