"""How good a study's autoencoders are, for the question that is asked of them: ``quality.json``.

    heldout   FVU, L0, dead features and more, of all rows, by split and by category (``heldout``): as in its history
    splice    what the model still does with the autoencoder in its site's place: refusal above all (``splice``)
    probing   how well harm, refusal and category are read off its features at the last prompt token (``probing``)

All on held-out prompts, and every autoencoder on all of them, whatever part it was trained on. For the model's runs and
for probing, prompts are drawn from each category in each split by turns, so that all strata count alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array, vstack

from refusal import InputError
from refusal.activations.datamodule import HELDOUT
from refusal.activations.recipe import Recipe
from refusal.activations.store import ActivationStore
from refusal.models.chat import ChatModel
from refusal.models.sites import Site
from refusal.progress import track
from refusal.sae.base import SparseAutoencoder
from refusal.sae.quality.probing import Rows, Targets, probe
from refusal.sae.splice import ROWS_AT_ONCE, Sample, Splicing

SCHEMA_VERSION = 1
MOST_PROBED = 1000  # prompts that probes are fitted on, and as many that they are judged on


def measure_quality(
    chat: ChatModel,
    store: ActivationStore,
    saes: Mapping[str, Site],
    load: Callable[[str], SparseAutoencoder],
    heldout: Mapping[str, Mapping[str, Any]],
    *,
    recipe: Recipe,
    kinds: Collection[str],
    max_prompts: int,
    responses: int,
    token_budget: int,
    seed: int,
) -> dict[str, Any]:
    """Measure autoencoders, one after the other.

    Args:
        chat: The model.
        store: Its activations.
        saes: The sites, by the names of their autoencoders.
        load: Loads the autoencoder of a name.
        heldout: Their figures on held-out rows, by the same names: they were measured when they were trained.
        recipe: How the activations were collected: how responses are made and judged.
        kinds: Kinds of the rows that the autoencoders were trained on.
        max_prompts: At most so many held-out prompts are run with each autoencoder in place.
        responses: So many of them are answered, too.
        token_budget: Padded tokens of one forward pass.
        seed: What the choice of prompts follows from.

    Returns:
        ``clean``: what the model itself does; ``saes``: for each name ``site``, ``heldout``, ``splice``, ``probing``.

    Raises:
        InputError: There is no held-out prompt.
    """
    table = store.prompts()
    counts = store.evidence() if store.refusal_tokens else (table["variant"] == "").to_numpy()
    in_heldout = table["fold"].isin(HELDOUT).to_numpy()
    rng = np.random.default_rng([seed, 11])
    run = _evenly(table, counts & in_heldout, max_prompts, rng)
    judged = _evenly(table, counts & in_heldout, MOST_PROBED, rng)
    fitted = _evenly(table, counts & ~in_heldout, MOST_PROBED, rng)
    if not len(run):
        raise InputError("there is no held-out prompt to measure the autoencoders on; take more prompts")
    splicing = Splicing(
        chat,
        Sample(
            [chat.encode(text, store.max_prompt_tokens) for text in table["text"].iloc[run]],
            table["split"].to_numpy(str)[run],
            table["category"].to_numpy(str)[run],
            min(responses, len(run)) if recipe.has_responses else 0,
        ),
        saes.values(),
        kinds=kinds,
        recipe=recipe,
        refusal_tokens=store.refusal_tokens,
        token_budget=token_budget,
    )
    targets = [_targets(table.iloc[rows], has_labels=bool(store.refusal_tokens)) for rows in (fitted, judged)]
    found = {}
    for name, site in track(saes.items(), "quality", len(saes)):
        sae, x = load(name).to(chat.device), store.last(site)
        found[name] = {
            "site": str(site),
            "heldout": heldout[name],
            "splice": splicing.measure(sae, site),
            "probing": probe(_rows(sae, x[fitted]), _rows(sae, x[judged]), *targets, seed=seed),
        }
    return {"schema_version": SCHEMA_VERSION, "clean": splicing.clean, "saes": found}


def _evenly(table: pd.DataFrame, counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most n of the prompts that count, drawn from each category in each split by turns."""
    rows = np.flatnonzero(counts)
    return rows[by_turns(list(zip(table["split"].iloc[rows], table["category"].iloc[rows], strict=True)), rng)[:n]]


def by_turns(groups: Sequence[Hashable], rng: np.random.Generator) -> np.ndarray:
    """Return all places in a random order in which no group has its second place before each has had its first."""
    order, seen, turn = rng.permutation(len(groups)), Counter(), []
    for place in order:
        turn.append(seen[groups[place]])
        seen[groups[place]] += 1
    return order[np.argsort(turn, kind="stable")]


def _targets(table: pd.DataFrame, *, has_labels: bool) -> Targets:
    """What is read off the prompts of a table; where there are no labels, not whether they were refused."""
    category = table["category"].to_numpy(str)
    refused = {"refused": {"refused": table["refused"].to_numpy(bool)}} if has_labels else {}
    return {
        "toxic": {"toxic": (table["split"] == "toxic").to_numpy()},
        **refused,
        "category": {str(name): category == name for name in np.unique(category)},
    }


def _rows(sae: SparseAutoencoder, x: np.ndarray) -> Rows:
    """Return rows [n, d_model] with their codes."""
    parts = []
    for part in torch.from_numpy(x).split(ROWS_AT_ONCE):
        values, indices = (tensor.cpu().numpy() for tensor in sae.sparse_codes(part.to(sae.W_dec)))
        starts = np.arange(0, values.size + 1, values.shape[1])
        parts.append(csr_array((values.ravel(), indices.ravel(), starts), shape=(len(values), sae.d_sae)))
    return Rows(csr_array(vstack(parts)), x)
