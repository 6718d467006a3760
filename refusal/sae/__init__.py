"""Sparse autoencoders: one is trained on each chosen site, and its features are the nodes of circuits.

A variant is one file with one class that overrides one method, ``SparseAutoencoder.select``: which features are
active. The base class owns everything else: the training step, the losses, dead features, metrics.
"""
