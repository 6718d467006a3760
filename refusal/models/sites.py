"""Names for the places in a model: ``residuals_N``, ``mlp_N``, ``attention_N`` (block N counts from 0).

``residuals_N`` is the output of block N; ``mlp_N`` and ``attention_N`` are what block N's MLP or attention
adds to the residual stream. All have shape [batch, seq, d_model]. Sites sort in the order of computation:
attention_N < mlp_N < residuals_N < attention_N+1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from refusal import InputError

KINDS = ("attention", "mlp", "residuals")  # in the order of computation inside a block
PRESETS = ("auto", "every", "sparse", "middle", "all")

_NAME = re.compile(rf"({'|'.join(KINDS)})_(?:(\d+)(?:-(\d+))?|all)")
_EXAMPLES = "such as residuals_10, mlp_3-5 or attention_all"


@dataclass(frozen=True, order=True)
class Site:
    """One place in a model; ``str(site)`` is its name."""

    _order: tuple[int, int] = field(init=False, repr=False)
    kind: str = field(compare=False)
    layer: int = field(compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", (self.layer, KINDS.index(self.kind)))

    def __str__(self) -> str:
        return f"{self.kind}_{self.layer}"

    @property
    def is_write(self) -> bool:
        """Whether this is what one component adds, rather than the stream that carries everything along."""
        return self.kind != "residuals"


def is_site_name(name: str) -> bool:
    """Whether the name is that of a site (``mlp_3``), a range (``mlp_3-5``) or all of a kind (``mlp_all``)."""
    return _NAME.fullmatch(name) is not None


def parse_site(name: str) -> Site:
    """Return the site of this name.

    Raises:
        InputError: The name is not that of a single site.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[2] is None or match[3] is not None:
        raise InputError(f"'{name}' is not a site; sites are named residuals_N, mlp_N and attention_N")
    return Site(match[1], int(match[2]))


def choose(
    names: Sequence[str], n_layers: int, *, preset: str = "auto", types: Sequence[str] | None = None
) -> list[Site]:
    """Return the sites that the names stand for, or those of the preset if there are no names.

    Args:
        names: Sites, ranges and ``<kind>_all``, each counted once.
        n_layers: Number of blocks of the model.
        preset: ``every`` block's three kinds; ``all`` blocks, the 12 in the ``middle``, or 7 ``sparse`` ones,
            residual sites only; ``auto`` is ``every`` up to 8 blocks and ``middle`` above.
        types: Kinds that widen or narrow a preset.

    Raises:
        InputError: A name or kind is unknown, or a layer is past the model's depth.
    """
    if names:
        return sorted({site for name in names for site in _expand(name, n_layers)})
    if preset == "auto":
        preset = "every" if n_layers <= 8 else "middle"
    kinds = _checked_kinds(types) if types else (KINDS if preset == "every" else ("residuals",))
    return sorted(Site(kind, layer) for layer in preset_layers(preset, n_layers) for kind in kinds)


def preset_layers(preset: str, n_layers: int) -> list[int]:
    """Return the blocks of a preset; all of them where the model has fewer than the preset wants."""
    if preset == "middle" and n_layers > 12:
        start = round((n_layers - 12) / 2)
        return list(range(start, start + 12))
    if preset == "sparse" and n_layers > 7:
        return [round(i * (n_layers - 1) / 6) for i in range(7)]
    if preset in PRESETS:
        return list(range(n_layers))
    raise InputError(f"unknown preset layers.preset={preset}{_nearest(preset, PRESETS)}; one of {', '.join(PRESETS)}")


def _expand(name: str, n_layers: int) -> Iterable[Site]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"unknown layer '{name}'{_nearest_kind(name)}; name a site {_EXAMPLES}")
    kind, first, last = match.groups()
    if first is None:
        return [Site(kind, layer) for layer in range(n_layers)]
    start, stop = int(first), int(last or first)
    if stop < start:
        raise InputError(f"layer range '{name}' runs backwards; write {kind}_{stop}-{start}")
    if stop >= n_layers:
        raise InputError(
            f"'{name}' is past the model's depth: its {n_layers} blocks are {kind}_0 to {kind}_{n_layers - 1}"
        )
    return [Site(kind, layer) for layer in range(start, stop + 1)]


def _checked_kinds(types: Sequence[str]) -> Sequence[str]:
    for kind in types:
        if kind not in KINDS:
            raise InputError(f"unknown type '{kind}' in layers.types{_nearest(kind, KINDS)}; one of {', '.join(KINDS)}")
    return types


def _nearest_kind(name: str) -> str:
    stem, _, number = name.partition("_")
    nearest = difflib.get_close_matches(stem, KINDS, n=1)
    return f", did you mean {nearest[0]}_{number or 'all'}?" if nearest and nearest[0] != stem else ""


def _nearest(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {nearest[0]}?" if nearest else ""
