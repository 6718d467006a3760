"""Numbers on disk: float32 as it is, or bfloat16 kept as uint16, which NumPy and HDF5 lack."""

from __future__ import annotations

import numpy as np

from refusal import InputError

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}


def check_dtype(dtype: str) -> None:
    """Raise an ``InputError`` unless activations can be stored in this type."""
    if dtype not in DTYPES:
        raise InputError(f"activations cannot be stored as '{dtype}'; one of {', '.join(DTYPES)}")


def decode(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Turn what is stored into float32, exactly."""
    if dtype == "float32":
        return stored
    return np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
