"""Rows of several sites for Lightning: an endless training stream cut to a number of steps, and held-out batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from refusal.activations.samplers import Sampler
from refusal.activations.source import KINDS, MEMORY_BYTES
from refusal.activations.store import ActivationStore
from refusal.activations.stream import TRAINING_FOLDS, RowStream
from refusal.models.sites import Site

HELDOUT = ("heldout",)


class ActivationDataModule(pl.LightningDataModule):
    """Training rows of the folds calibration and train (no label reaches an autoencoder), and held-out ones.

    With several processes each gets its share of the same global batches. The state in a checkpoint lets a
    training go on with the rows that would have come next.

    Args:
        store: Where the rows are.
        sites: Which of its sites: a batch has the same rows of each, [n_sites, batch, d_model].
        sampler: Gives each stratum its weight; for held-out rows, too.
        batch_size: Rows of a batch, over all processes together.
        n_steps: Number of training batches.
        n_heldout: Number of held-out batches, the same every time.
        seed: What the order follows from.
        last_fraction: Share of rows from the last prompt position.
        kinds: Kinds of the other rows.
        memory_bytes: A site's rows are held in memory up to this size, and read piece by piece beyond it.
    """

    def __init__(
        self,
        store: ActivationStore,
        sites: Sequence[Site | str],
        sampler: Sampler,
        *,
        batch_size: int,
        n_steps: int,
        n_heldout: int = 8,
        seed: int = 0,
        last_fraction: float = 0.25,
        kinds: Collection[str] = KINDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__()
        self._options: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
        self._options |= {"last_fraction": last_fraction, "kinds": kinds, "memory_bytes": memory_bytes}
        self._store, self._sites, self._sampler = store, tuple(sites), sampler
        self._n_steps, self._n_heldout = n_steps, n_heldout
        self._state: Mapping[str, Any] | None = None
        self._stream: RowStream | None = None

    @property
    def stream(self) -> RowStream:
        """The training rows, from where they are up to; opened in the process that uses them."""
        if self._stream is None:
            self._stream = self._open(TRAINING_FOLDS)
            if self._state is not None:
                self._stream.load_state_dict(self._state)
        return self._stream

    def train_dataloader(self) -> Iterable[Tensor]:
        """Return the training batches [n_sites, batch, d_model]."""
        return _Batches(self.stream, self._n_steps)

    def val_dataloader(self) -> Iterable[Tensor]:
        """Return the held-out batches [n_sites, batch, d_model], from their beginning."""
        return _Batches(self._open(HELDOUT), self._n_heldout, restart=True)

    def state_dict(self) -> dict[str, Any]:
        """Return where the training rows are up to."""
        return self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._state = state_dict
        if self._stream is not None:
            self._stream.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open rows out: each process of a distributed training opens its part."""
        return {**self.__dict__, "_stream": None}

    def _open(self, folds: Sequence[str]) -> RowStream:
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return RowStream(self._store, self._sites, self._sampler, folds=folds, rank=rank, world=world, **self._options)


class _Batches:
    """So many batches of a stream; its length tells Lightning not to fetch ahead, so that the state is exact."""

    def __init__(self, stream: RowStream, n_batches: int, *, restart: bool = False) -> None:
        self._stream, self._n_batches = stream, n_batches
        self._start = stream.state_dict() if restart else None

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[Tensor]:
        if self._start is not None:
            self._stream.load_state_dict(self._start)
        try:
            for _ in range(self._n_batches):
                yield next(self._stream)
        finally:
            self._stream.close()
