"""Sparse autoencoders: they are trained on chosen sites, and their features are the nodes of circuits.

An architecture is one file with one class in ``architectures``, which says which features are active and what is
minimised. The base class owns weights, units, use and dead features.
"""
