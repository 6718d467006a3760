"""Read and change a model's sites, and the neurons of its MLPs, during a forward pass.

Which module's output is a site is said, family by family, in ``refusal.models.architectures``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from refusal.models.architectures import find
from refusal.models.sites import Site

Edit = Callable[[Tensor], Tensor]


@contextmanager
def reading(model: nn.Module, sites: Iterable[Site]) -> Iterator[dict[Site, Tensor]]:
    """Yield a dictionary that each forward pass fills with the sites' tensors, [batch, seq, d_model]."""
    read: dict[Site, Tensor] = {}

    def keep(site: Site) -> Edit:
        def edit(x: Tensor) -> Tensor:
            read[site] = x
            return x

        return edit

    with editing(model, {site: keep(site) for site in sites}):
        yield read


@contextmanager
def editing(model: nn.Module, edits: Mapping[Site, Edit]) -> Iterator[None]:
    """Within the block, every forward pass puts ``edit(x)`` in the place of each site's x [batch, seq, d_model].

    Nested blocks apply in the order in which they were entered.

    Raises:
        InputError: The model's architecture is not one whose sites are known.
    """
    family, blocks = find(model)
    with ExitStack() as stack:
        for site, edit in edits.items():
            handle = family.module(blocks[site.layer], site.kind).register_forward_hook(_hook(edit))
            stack.callback(handle.remove)
        yield


def has_neurons(model: nn.Module) -> bool:
    """Whether it is known where the neurons of the model's MLPs are."""
    family, blocks = find(model)
    return all(family.reader(block) is not None for block in blocks)


@contextmanager
def editing_neurons(model: nn.Module, edits: Mapping[int, Edit]) -> Iterator[None]:
    """Within the block, every pass puts ``edit(a)`` in the place of the neurons a [batch, seq, d_mlp] of each layer."""
    family, blocks = find(model)
    with ExitStack() as stack:
        for layer, edit in edits.items():
            reader = family.reader(blocks[layer])
            assert reader is not None, "see has_neurons"
            handle = reader.register_forward_pre_hook(_pre_hook(edit))
            stack.callback(handle.remove)
        yield


def _hook(edit: Edit) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns (output, weights), some blocks (output, ...)
            return (edit(output[0]), *output[1:])
        return edit(output)

    return hook


def _pre_hook(edit: Edit) -> Callable[[nn.Module, Any], Any]:
    def hook(_module: nn.Module, args: Any) -> Any:
        return (edit(args[0]), *args[1:])

    return hook
