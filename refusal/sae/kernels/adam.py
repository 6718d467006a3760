"""Adam as torch has it, but that unit rows stay so; on a CPU in one pass over the weights, their norms included.

Source: Kingma and Ba, 2015, arXiv 1412.6980, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from refusal.sae.kernels import cpu
from refusal.sae.kernels.products import suits_cpu


class Adam(torch.optim.Adam):
    """Adam, whose update on a CPU is one loop for all that it does to a row; its state is that of torch's.

    Args:
        groups: Parameters as torch takes them; a group with ``unit_rows=True`` holds matrices whose rows are divided by
            their lengths after every step (rows of zeros stay).
        lr: Learning rate.
        eps: Added to the root of the second moment.
        fused: Whether torch updates in one kernel what is not on a CPU.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, eps: float = 1e-8, *, fused: bool = True) -> None:
        super().__init__([{"unit_rows": False, **group} for group in groups], lr=lr, eps=eps, fused=fused)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of all gradients, whatever ``set_to_none`` says; a small step feels torch's bookkeeping here."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient; return what the closure returns."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        if not all(suits_cpu(weight) and weight.is_contiguous() for weight in weights):
            result = super().step(closure)
            for weight in (weight for group in self.param_groups if group["unit_rows"] for weight in group["params"]):
                normalize(weight, dim=1, out=weight)
            return result
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        groups = [(group, weight) for group in self.param_groups for weight in group["params"]]
        cpu.adam([self._update(weight, weight.grad, group) for group, weight in groups if weight.grad is not None])
        return result

    def _update(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> cpu.Update:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        count = state["step"].numpy()  # its memory, in which numpy counts faster than torch
        count += 1
        step, (beta_1, beta_2) = int(count), group["betas"]
        step_size, root = float(group["lr"]) / (1 - beta_1**step), math.sqrt(1 - beta_2**step)
        numbers = beta_1, beta_2, step_size, 1 / root, group["eps"]
        return cpu.Update(weight, grad, state["exp_avg"], state["exp_avg_sq"], numbers, group["unit_rows"])
