"""The sparse products of a training step: whatever is not active is neither multiplied nor stored.

``pairs`` says which feature is active in which row, ``products`` sums over those pairs, and ``autograd`` makes
differentiable functions of that.
"""
