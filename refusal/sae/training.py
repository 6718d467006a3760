"""Lightning's view of a training: several autoencoders side by side on the same batches.

Each has its own losses, gradients and history, so that it comes out the same whether it trains alone or with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from refusal.sae import metrics
from refusal.sae.base import SparseAutoencoder, Step
from refusal.sae.recipe import Recipe

ADAM_EPS = 6.25e-10  # Gao et al., appendix A: gradients of a mean over d_model dimensions are small
HISTORY_POINTS = 100  # a training is recorded about so often

Point = dict[str, float | int | None]
"""What is recorded of a step: step, rows, loss, fvu, l0, dead_features."""


class SideBySide(pl.LightningModule):
    """Trains autoencoders on the same batches.

    Args:
        saes: The autoencoders.
        recipe: How to train them.
    """

    def __init__(self, saes: Sequence[SparseAutoencoder], recipe: Recipe) -> None:
        super().__init__()
        self.saes = nn.ModuleList(saes)
        self.recipe = recipe
        self.histories: list[list[Point]] = [[] for _ in saes]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the sum of the losses of rows [batch, d_model], and record them now and then."""
        progress = self.global_step / self.trainer.max_steps
        steps = [sae.step(batch, progress) for sae in self._saes]
        if self.global_step % max(1, self.trainer.max_steps // HISTORY_POINTS) == 0:
            self._record(steps)
        return torch.stack([step.loss for step in steps]).sum()

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Let each autoencoder see to its weights."""
        for sae in self._saes:
            sae.after_update()

    def configure_optimizers(self) -> Any:
        """Return Adam with a learning rate that rises, stays, and falls."""
        recipe, steps = self.recipe, self.trainer.max_steps
        fused = not self.trainer.gradient_clip_val  # in mixed precision Lightning cannot clip for a fused optimiser
        optimizer = torch.optim.Adam(self.parameters(), lr=recipe.lr, eps=ADAM_EPS, fused=fused)

        def share(step: int) -> float:
            rising, falling = max(1.0, recipe.lr_warmup * steps), max(1.0, recipe.lr_decay * steps)
            return min(1.0, (step + 1) / rising, (steps - step) / falling)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _saes(self) -> list[SparseAutoencoder]:
        return list(self.saes)  # type: ignore[arg-type]

    def _record(self, steps: Sequence[Step]) -> None:
        for sae, step, history in zip(self._saes, steps, self.histories, strict=True):
            n_rows = len(step.x)
            point: Point = {
                "loss": float(step.loss.detach()),
                "fvu": metrics.fvu(step.x, step.x - step.error),
                "l0": int(step.is_active.sum()) / n_rows,
                "dead_features": int(sae.is_dead.sum()),
            }
            rows = (self.global_step + 1) * n_rows * self.trainer.world_size
            history.append({"step": self.global_step, "rows": rows, **point})
            if self.logger is not None:
                logged = {f"train/{name}": value for name, value in point.items() if value is not None}
                self.logger.log_metrics(logged, self.global_step)
