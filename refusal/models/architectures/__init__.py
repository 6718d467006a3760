"""Where each family of models keeps its blocks, and which module's output *is* what a component adds to the stream.

One file a family, with an ``ARCHITECTURE``; a file put here is found by itself. A model of a type that no file names
is taken for the first family (in the order of their names) whose modules it has. Whether its sites then are what they
claim to be is not believed but measured, before a run (``refusal.models.selftest``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from torch import nn

from refusal import InputError


@dataclass(frozen=True)
class Architecture:
    """The places of one family, as dotted names of modules."""

    model_types: tuple[str, ...]
    """``model_type`` of the configurations of the family's text models."""
    blocks: tuple[str, ...]
    """The list of blocks, seen from the model: the first of these names that it has."""
    attention: str
    """Seen from a block, the module whose output attention adds to the residual stream."""
    mlp: str
    """Seen from a block, the module whose output the MLP adds to the residual stream."""
    neurons: str
    """Seen from a block, the linear map whose inputs are the MLP's neurons."""
    norm: str
    """The norm between the last block and the unembedding, seen from the module that holds the list of blocks."""

    def blocks_of(self, model: nn.Module) -> nn.ModuleList | None:
        """Return the model's blocks, in order; None if it is not built like this family."""
        for name in self.blocks:
            blocks = _module(model, name)
            if isinstance(blocks, nn.ModuleList) and len(blocks) and self._fits(blocks[0]):
                return blocks
        return None

    def module(self, block: nn.Module, kind: str) -> nn.Module:
        """Return the module of a block whose output is its site of this kind."""
        names = {"attention": self.attention, "mlp": self.mlp, "residuals": ""}  # no name: the block itself
        return block.get_submodule(names[kind])

    def reader(self, block: nn.Module) -> nn.Module | None:
        """Return the module of a block whose inputs are the MLP's neurons; None if it has none of the family's name."""
        return _module(block, self.neurons)

    def final_norm(self, model: nn.Module) -> nn.Module:
        """Return the norm between the last block and the unembedding; what does nothing, if there is none."""
        places = (f"{name.rpartition('.')[0]}.{self.norm}" for name in self.blocks)
        return next((found for place in places if (found := _module(model, place)) is not None), nn.Identity())

    def _fits(self, block: nn.Module) -> bool:
        return _module(block, self.attention) is not None and _module(block, self.mlp) is not None


def find(model: nn.Module) -> tuple[Architecture, nn.ModuleList]:
    """Return the family of a model, and its blocks.

    Raises:
        InputError: The model is not built like any family.
    """
    config = getattr(model, "config", None)
    model_type = config.get_text_config().model_type if config is not None else None
    named = [family for family in families() if model_type in family.model_types]
    for family in named or families():
        blocks = family.blocks_of(model)
        if blocks is not None:
            return family, blocks
    raise InputError(
        f"{type(model).__name__} is not supported: it is not built like one of {', '.join(_known(families()))} "
        "(docs/models.md says how a family is added)"
    )


@cache
def families() -> tuple[Architecture, ...]:
    """Return the families of this folder, in the order of their files' names."""
    names = sorted(module.name for module in iter_modules(__path__))
    return tuple(import_module(f"{__name__}.{name}").ARCHITECTURE for name in names)


def _known(architectures: Iterable[Architecture]) -> list[str]:
    return sorted(model_type for family in architectures for model_type in family.model_types)


def _module(parent: nn.Module, name: str) -> nn.Module | None:
    """Return the module of this dotted name, or None."""
    try:
        return parent.get_submodule(name)
    except AttributeError:
        return None
