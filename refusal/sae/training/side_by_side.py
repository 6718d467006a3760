"""Lightning's view of a training: several autoencoders side by side on the same batches.

Each has its own loss, gradients, clipping and history, so that it comes out the same, to the bit, whether it trains
alone or with others. What it draws at random is its own, too: a seed, or a generator that is in its ``state_dict``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.loggers import Logger
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

from refusal import InputError
from refusal.sae.base import SparseAutoencoder, Step
from refusal.sae.kernels.adam import Adam
from refusal.sae.ranks import total
from refusal.sae.recipe import Recipe

ADAM_EPS = 6.25e-10  # Gao et al., appendix A: gradients of a mean over d_model dimensions are small
HISTORY_POINTS = 100  # a training is recorded about so often

Point = dict[str, float | int | None]
"""What is recorded of a step: step, rows, loss, fvu, l0, dead_features."""


class Member(NamedTuple):
    """One of the autoencoders that train side by side."""

    name: str
    """What logs and messages call it."""
    sae: SparseAutoencoder
    place: int
    """Which of a batch's sites it learns."""
    history: list[Point]


class SideBySide(pl.LightningModule):
    """Trains autoencoders on the same batches.

    Args:
        members: The autoencoders.
        recipe: How to train them.
    """

    def __init__(self, members: Sequence[Member], recipe: Recipe) -> None:
        super().__init__()
        self.members, self.recipe = tuple(members), recipe
        self.saes = nn.ModuleList(member.sae for member in members)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; Lightning notes 46 times a batch in which hook it is: else 2 % of a small step."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def histories(self) -> dict[str, list[Point]]:
        """What has been recorded of each."""
        return {member.name: member.history for member in self.members}

    def on_train_start(self) -> None:
        """Log again what a logger has lost."""
        if self.logger is not None and not is_continued(self.logger):
            log_points(self.logger, self.histories)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the sum of the losses of a batch [n_sites, batch, d_model], and record them now and then."""
        trainer = self.trainer
        done, n_steps = trainer.global_step, trainer.max_steps
        steps = [member.sae.step(batch[member.place], done / n_steps) for member in self.members]
        if done % max(1, n_steps // HISTORY_POINTS) == 0 and batch_idx % trainer.accumulate_grad_batches == 0:
            self._record(steps, done)
        loss = reduce(torch.add, [step.loss for step in steps])
        # processes have parts of a batch that differ by some rows, and Lightning takes the mean over processes
        share = batch.shape[1] * trainer.world_size / self.recipe.batch_size
        return loss if share == 1 else loss * share

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradients of each autoencoder by their own norm."""
        if gradient_clip_val:
            for member in self.members:
                nn.utils.clip_grad_norm_(member.sae.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """Return Adam with a learning rate that rises, stays, and falls."""
        recipe, steps = self.recipe, self.trainer.max_steps
        fused = self.trainer.precision != "16-mixed"  # a fused optimiser scales gradients back after they are clipped
        groups = [group for member in self.members for group in member.sae.parameter_groups()]
        optimizer = Adam(groups, recipe.lr, ADAM_EPS, fused=fused)

        def share(step: int) -> float:
            rising, falling = max(1.0, recipe.lr_warmup * steps), max(1.0, recipe.lr_decay * steps)
            return min(1.0, (step + 1) / rising, (steps - step) / falling)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def get_extra_state(self) -> list[list[Point]]:
        """Return the histories: with the weights they come back from checkpoints and from other processes."""
        return [member.history for member in self.members]

    def set_extra_state(self, state: list[list[Point]]) -> None:
        """Take the histories."""
        for member, history in zip(self.members, state, strict=True):
            member.history[:] = history

    def _record(self, steps: Sequence[Step], done: int) -> None:
        rows = (done + 1) * self.recipe.batch_size * self.trainer.accumulate_grad_batches
        for member, step in zip(self.members, steps, strict=True):
            point = {"step": done, "rows": rows, **figures(member.sae, step)}
            if not math.isfinite(point["loss"] or 0.0):
                raise InputError(
                    f"the training of {member.name} diverged at step {done} with sae.lr={self.recipe.lr}; lower it"
                )
            member.history.append(point)
        if self.logger is not None:
            log_points(self.logger, self.histories, done)


def figures(sae: SparseAutoencoder, step: Step) -> Point:
    """Return the figures of a step over all processes: loss, fvu, l0, dead_features."""
    x, n_here = step.x, len(step.x)
    sums = [step.loss.detach() * n_here, step.error.square().sum(), step.is_active.sum(), torch.tensor(n_here)]
    loss, unexplained, n_active, n_rows = total(torch.stack([one.to(x.device, torch.float64) for one in sums])).tolist()
    mean = total(x.sum(0)) / n_rows
    variance = float(total((x - mean).square().sum()))
    return {
        "loss": loss / n_rows,
        "fvu": unexplained / variance if variance > 0 else None,
        "l0": n_active / n_rows,
        "dead_features": int(sae.is_dead.sum()),
    }


def log_points(logger: Logger, histories: Mapping[str, Sequence[Point]], first: int = 0) -> None:
    """Log the points of histories of one training from this step on: ``NAME/train/loss`` and so on."""
    for points in zip(*histories.values(), strict=True):
        step = int(points[0]["step"] or 0)
        if step >= first:
            logged = {
                f"{name}/train/{figure}": value
                for name, point in zip(histories, points, strict=True)
                for figure, value in point.items()
                if figure not in ("step", "rows") and value is not None
            }
            logger.log_metrics(logged, step)


def is_continued(logger: Logger) -> bool:
    """Whether what a logger was given before a training was killed is still there when it goes on."""
    return not isinstance(logger, CSVLogger)  # begins its file anew
