"""Sparse autoencoders: they are trained on chosen sites, and their features are the nodes of circuits.

    architectures  one file a kind, with one class: which features are active, and what is minimised
    kernels        the products of a training step
    training       from rows of the store to an autoencoder in its folder
    quality        how good it is, with the model and without
    exchange       the files of other libraries, and the hub
    figures        its pictures
    splice         it takes its site's place in the model

The base class owns weights, units, use and dead features.
"""
