"""The page that goes with a published autoencoder: what it is, how good it is, how to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.formats import Origin, our_version

LOADING = {
    "refusal": "from refusal.sae.exchange.formats import read_sae\n\nsae = read_sae(folder)",
    "sae_lens": "from sae_lens import SAE\n\nsae = SAE.load_from_disk(folder)",
    "sparsify": "from sparsify import SparseCoder\n\nsae = SparseCoder.load_from_disk(folder)",
}
WHERE = {
    "residuals": "the residual stream after block {}",
    "mlp": "what the MLP of block {} adds to the residual stream",
    "attention": "what the attention of block {} adds to the residual stream",
}
LEVELS = ("score", "refusal_rate", "kl", "ce")  # of ``splice``
UNKNOWN = "not known"


def model_card(
    sae: SparseAutoencoder,
    origin: Origin,
    name: str,
    *,
    data: str | None,
    heldout: Mapping[str, Any],
    splice: Mapping[str, Any],
    licence: str | None,
) -> str:
    """Return the text of ``README.md``, with its front matter.

    Args:
        sae: The autoencoder.
        origin: What it was trained on.
        name: Format of the files.
        data: Name of the prompts it was trained on.
        heldout: Its figures on held-out prompts, as ``history.json`` holds them: rows ``all`` and ``last``; or empty.
        splice: What the model does with it in place, as ``quality.json`` holds it of all prompts; or empty.
        licence: Short name of the licence that the publisher chose, such as ``apache-2.0``.
    """
    head: dict[str, Any] = {"library_name": "refusal-circuits", "tags": ["sparse-autoencoder", "interpretability"]}
    if licence:
        head["license"] = licence
    if origin.model and re.fullmatch(r"[\w.-]+/[\w.-]+", origin.model):
        head["base_model"] = origin.model
    facts = {
        "model": origin.model or UNKNOWN,
        "site": _site(origin.site),
        "data": data or UNKNOWN,
        "architecture": type(sae).__name__,
        "features": f"{sae.d_sae:,} of {sae.d_model:,} dimensions",
        **{key: str(getattr(sae, key)) for key in sae.settings},
        "files": f"{name}, written by refusal-circuits {our_version()}",
    }
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()) + "---",
        f"# Sparse autoencoder of {_plain(facts['model'])}, {_plain(origin.site or UNKNOWN)}",
        _table(["", ""], [[key, value] for key, value in facts.items()]),
        "## On held-out prompts",
        _figures(heldout),
        *_in_place(splice),
        "## Loading",
        f"```python\n{LOADING[name]}\n```",
        "It reads and returns activations as the model has them: no scaling is left to be done.",
    ]
    return "\n\n".join(parts) + "\n"


def _site(site: str | None) -> str:
    if site is None:
        return UNKNOWN
    kind, _, layer = site.rpartition("_")
    return f"{site}: {WHERE[kind].format(layer)}"


def _figures(heldout: Mapping[str, Any]) -> str:
    columns = {title: heldout.get(part) or {} for part, title in (("all", "all positions"), ("last", "last position"))}
    names = [name for name, value in columns["all positions"].items() if isinstance(value, (int, float))]
    if not names:
        return "Not measured."
    rows = [[name.replace("_", " "), *(_number(column.get(name)) for column in columns.values())] for name in names]
    return _table(["", *columns], rows)


def _in_place(splice: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section on the model with the autoencoder in its site's place."""
    if not splice:
        return
    yield "## In the model"
    ways = {"clean": "the model itself", "spliced": "with the autoencoder", "ablated": "with its site's mean"}
    rows = [[name.replace("_", " "), *(_number(splice[name][way]) for way in ways)] for name in LEVELS]
    yield _table(["", *ways.values()], rows)
    shares = {"refusal score": splice["recovered_refusal"], "cross-entropy": splice["recovered_ce"]}
    said = [f"{share:.1%} of the {name}" for name, share in shares.items() if share is not None]
    yield f"It recovers {' and '.join(said)}." if said else "Its site hardly matters to these prompts."


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """The text as Markdown shows it unchanged: names come from anyone's files."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))
