"""Collect a model's activations once, keep them in HDF5 shards, and stream their rows to training."""
