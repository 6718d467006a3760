"""The sparse products of a training step: whatever is not active is neither multiplied nor stored.

``pairs`` says which feature is active in which row, ``products`` sums over those pairs (on a CPU by the compiled
``loops`` and ``top_k`` that ``cpu`` runs), and ``reconstruction`` makes a differentiable loss of that. ``adam``
updates the weights.
"""
