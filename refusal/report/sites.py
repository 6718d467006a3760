"""Sites in words: ``attention and MLP writes of layers 2-4`` says in a line what a list of names cannot."""

from __future__ import annotations

from collections.abc import Iterable

from refusal.models.sites import KINDS, parse_site

WRITES = {"attention": "attention", "mlp": "MLP"}


def in_words(names: Iterable[str]) -> str:
    """Return the sites in words, kinds that stand at the same layers together; empty for none.

    Args:
        names: Names of single sites, such as ``mlp_3``, in any order.
    """
    sites = [parse_site(name) for name in names]
    layers = {kind: sorted({site.layer for site in sites if site.kind == kind}) for kind in KINDS}
    if layers["attention"] and layers["attention"] == layers["mlp"]:
        parts = [f"attention and MLP writes {_at(layers['mlp'])}"]
    else:
        parts = [f"{word} writes {_at(layers[kind])}" for kind, word in WRITES.items() if layers[kind]]
    if layers["residuals"]:
        parts.append(f"residual stream {_at(layers['residuals'])}")
    return "; ".join(parts)


def _at(layers: list[int]) -> str:
    """``of layer 3`` or ``of layers 0-2, 5``: runs of layers as ranges, never a list longer than four."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    if len(runs) > 4:
        return f"of {len(layers)} layers from {layers[0]} to {layers[-1]}"
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"of layer{'s' if len(layers) > 1 else ''} {text}"
