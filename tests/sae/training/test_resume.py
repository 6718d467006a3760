"""A training that was killed goes on with the very next step, and ends as if it had not been."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from refusal import InputError
from refusal.activations.datamodule import ActivationDataModule
from refusal.activations.store import ActivationStore
from refusal.sae.training.checkpoints import NAME
from tests.sae.one_training import RECIPE_OF_100, train_two

ROOT = Path(__file__).parents[3]


class StopsAt(pl.Callback):
    """Ends the training, as an interrupt does, when so many batches are done; notes which were begun."""

    def __init__(self, n_batches: int | None = None) -> None:
        self.n_batches = n_batches
        self.begun: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.n_batches:
            raise KeyboardInterrupt
        self.begun.append(batch_idx)


def results(folder: Path) -> dict[str, bytes]:
    """Return every file that a training has written, but for the pictures."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "saes").rglob("*.[sj]*")}


@pytest.fixture(scope="session")
def straight(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a training writes that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    train_two(store, folder)
    return results(folder)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_ends_with_the_same_files(
    store: ActivationStore, straight: dict[str, bytes], tmp_path: Path
):
    steps = ("14", "25", "31")  # each next life goes on from the last tenth step
    command = [sys.executable, "-m", "tests.sae.one_training", str(store.folder), str(tmp_path), *steps]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("sae")] == ["-9", "-9", "-9", "0"], done.stderr
    assert sum("resumed" in line for line in lines) == 3
    assert results(tmp_path) == straight


@pytest.mark.parametrize(
    ("trainer", "stops"),
    [
        ({}, (50, 57, 99)),  # just saved, between two savings, at the last step
        ({"precision": "bf16-mixed", "gradient_clip_val": 0.5}, (33,)),
        ({"accumulate_grad_batches": 3}, (65, 66, 67)),
    ],
)
def test_a_training_stopped_anywhere_ends_with_the_same_files(
    store: ActivationStore, tmp_path: Path, trainer: dict[str, Any], stops: tuple[int, ...]
):
    whole = StopsAt()
    train_two(store, tmp_path / "straight", whole, **trainer)
    done = 0
    for stop in stops:
        part = StopsAt(stop)
        with pytest.raises(KeyboardInterrupt):
            train_two(store, tmp_path / "stopped", part, **trainer)
        assert part.begun == whole.begun[done:stop]
        gathered = trainer.get("accumulate_grad_batches", 1)
        done = stop // gathered // 10 * 10 * gathered
    last = StopsAt()
    train_two(store, tmp_path / "stopped", last, **trainer)
    assert last.begun == whole.begun[done:]
    assert results(tmp_path / "stopped") == results(tmp_path / "straight")


def test_rows_from_disk_go_on_as_rows_in_memory_do(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    defaults = ActivationDataModule.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "memory_bytes", 34_000)  # of 61,440
    train_two(store, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train_two(store, tmp_path / "stopped", StopsAt(57))
    train_two(store, tmp_path / "stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "straight")


def test_it_says_where_it_goes_on(store: ActivationStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(KeyboardInterrupt):
        train_two(store, tmp_path, StopsAt(57))
    assert capsys.readouterr().out == ""
    train_two(store, tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"sae           resumed  {tmp_path / '.checkpoints' / NAME} at step 50 of 100"


def _stopped(store: ActivationStore, folder: Path) -> Path:
    """Leave a checkpoint at step 50; return its path."""
    with pytest.raises(KeyboardInterrupt):
        train_two(store, folder, StopsAt(57))
    return folder / ".checkpoints" / NAME


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"hello",
    "bit": lambda content: bytes(byte ^ (i == len(content) // 2) for i, byte in enumerate(content)),
}


def test_a_damaged_checkpoint_is_mentioned_and_the_training_begins_anew(
    store: ActivationStore, straight: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = _stopped(store, tmp_path)
    content = path.read_bytes()
    for damage in DAMAGES.values():
        path.write_bytes(damage(content))
        begun = StopsAt(1)
        with pytest.raises(KeyboardInterrupt):
            train_two(store, tmp_path, begun)
        assert begun.begun == [0]
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"warning: {path} is damaged (")
        assert line.endswith("); the training begins anew")
    train_two(store, tmp_path)
    assert results(tmp_path) == straight


def test_a_checkpoint_of_another_training_is_left_alone(store: ActivationStore, tmp_path: Path):
    path = _stopped(store, tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"last\.ckpt is of another training .*move or delete .*\.checkpoints"):
        train_two(store, tmp_path, recipe=replace(RECIPE_OF_100, lr=1e-3))
    assert path.read_bytes() == before


def test_a_checkpoint_that_would_run_code_does_not(store: ActivationStore, tmp_path: Path):
    path = _stopped(store, tmp_path)
    torch.save({"identity": _Runs(tmp_path / "ran")}, path)
    train_two(store, tmp_path)
    assert not (tmp_path / "ran").exists()


class _Runs:
    """What would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_disk_that_refuses_a_checkpoint_does_not_end_the_training(
    store: ActivationStore, straight: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / ".checkpoints").write_text("a file where the folder should be")
    train_two(store, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: cannot write {tmp_path / '.checkpoints' / NAME}: Not a directory; the training goes"
    )
    assert results(tmp_path) == straight


def test_a_checkpoint_is_written_only_when_it_is_time(store: ActivationStore, tmp_path: Path):
    train_two(store, tmp_path, checkpoint_minutes=10)
    assert not (tmp_path / ".checkpoints").exists()


def test_a_logger_that_begins_its_file_anew_gets_the_whole_curve(store: ActivationStore, tmp_path: Path):
    curves = []
    for name, stops in (("straight", [None]), ("stopped", [57, None])):
        for stop in stops:
            logger = CSVLogger(tmp_path, name="logs", version=name)
            with contextlib.suppress(KeyboardInterrupt):
                train_two(store, tmp_path / name, StopsAt(stop), logger=logger)
            logger.save()
        curves.append((tmp_path / "logs" / name / "metrics.csv").read_text())
    assert curves[0] == curves[1]
