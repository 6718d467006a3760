"""The sparse products of a training step: whatever is not active is neither multiplied nor stored.

``pairs`` says which feature is active in which row, ``products`` sums over those pairs, and ``autograd`` makes
differentiable functions of that.
"""

from refusal.sae.kernels.batched import Active, decode, largest, pre_codes_at, sum_by_row

__all__ = ["Active", "decode", "largest", "pre_codes_at", "sum_by_row"]
