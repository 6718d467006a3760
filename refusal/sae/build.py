"""An autoencoder from what its recipe says."""

from __future__ import annotations

import importlib

from refusal import InputError
from refusal.sae.base import SparseAutoencoder
from refusal.sae.recipe import Recipe

EXAMPLE = "refusal.sae.architectures.topk.TopK"


def class_of(target: str) -> type[SparseAutoencoder]:
    """Return the class of an import path such as ``refusal.sae.architectures.topk.TopK``.

    Raises:
        InputError: There is no such class, or it is no autoencoder.
    """
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no autoencoder '{target}' ({error}); one is {EXAMPLE}") from error
    if not (isinstance(found, type) and issubclass(found, SparseAutoencoder)):
        raise InputError(f"'{target}' is not a SparseAutoencoder; one is {EXAMPLE}")
    return found


def build(recipe: Recipe, d_model: int) -> SparseAutoencoder:
    """Return the autoencoder of a recipe for activations of width ``d_model``, before any training.

    Raises:
        InputError: There is no such class, or the recipe's options are not for it.
    """
    kind = class_of(recipe.target)
    common = {"seed": recipe.seed, "dead_after_rows": recipe.dead_after_rows}
    try:
        return kind(d_model, recipe.hidden_dim, **recipe.options, **common)
    except TypeError as error:
        raise InputError(f"{recipe.target} cannot be made with {dict(recipe.options)}: {error}") from error
