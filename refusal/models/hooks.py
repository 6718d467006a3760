"""Read and change a model's sites during a forward pass.

Blocks are found by structure (``model.model.layers[i].self_attn`` / ``.mlp``, as in Llama, Mistral and Qwen),
where each of the two components' outputs is added to the residual stream as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from refusal import InputError
from refusal.models.sites import Site

Edit = Callable[[Tensor], Tensor]

# Architectures that scale or normalise a component's output before adding it: there, the module's
# output is not what is written to the stream.
_POST_NORM = ("pre_feedforward_layernorm", "post_feedforward_layernorm", "residual_multiplier")


def blocks(model: nn.Module) -> nn.ModuleList:
    """Return the model's transformer blocks, in order.

    Raises:
        InputError: The architecture is not one whose sites are known.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    name = type(model).__name__
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
        raise InputError(f"{name} is not supported: its blocks are not at model.layers (Llama, Mistral, Qwen are)")
    first = layers[0]
    if not (hasattr(first, "self_attn") and hasattr(first, "mlp")) or any(hasattr(first, part) for part in _POST_NORM):
        raise InputError(f"{name} is not supported: its blocks do not add self_attn and mlp to the stream as they are")
    return layers


def module_of(model: nn.Module, site: Site) -> nn.Module:
    """Return the module whose output is the site."""
    block = blocks(model)[site.layer]
    return {"attention": block.self_attn, "mlp": block.mlp, "residuals": block}[site.kind]  # type: ignore[return-value]


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
    """
    with ExitStack() as stack:
        for site, edit in edits.items():
            handle = module_of(model, site).register_forward_hook(_hook(edit))
            stack.callback(handle.remove)
        yield


def _hook(edit: Edit) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns (output, weights), some blocks (output, ...)
            return (edit(output[0]), *output[1:])
        return edit(output)

    return hook
