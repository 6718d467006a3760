"""Find out what the nodes of the circuits are; :mod:`refusal.circuits.features` says what is written.

1. Read the prompts' activations at the last position from the store, and encode them.
2. Read off the weights which tokens a feature's direction raises, and which other directions are near it.
3. Run the model once over the prompts on which some feature is most active, and encode all of their tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refusal.activations.store import ActivationStore
from refusal.artifacts import write_json
from refusal.circuits.circuit import ERROR, Circuit, load_circuit
from refusal.circuits.experiment import Dictionary
from refusal.circuits.features import (
    FEATURES,
    HEAD,
    N_NEIGHBOURS,
    N_PROMPTS,
    N_TOKENS,
    SCHEMA_VERSION,
    TAIL,
    strongest,
)
from refusal.models.chat import ChatModel, Encoded
from refusal.models.hooks import reading
from refusal.models.lens import logit_lens
from refusal.models.sites import Site, parse_site
from refusal.models.tokens import INSTRUCTION, TEMPLATE

BATCH = 16
"""Features whose logits are taken at once."""
ROWS = 2048
"""Tokens that are run, and encoded, at once: the activations of all sites are in memory."""


@dataclass(frozen=True)
class Prompts:
    """The prompts that features are looked at on."""

    ids: Sequence[str]
    texts: Sequence[str]
    splits: Sequence[str]
    categories: list[str]
    category: np.ndarray
    """Index into ``categories``, int [n_prompts]."""
    refused: np.ndarray
    """bool [n_prompts]"""
    rows: np.ndarray
    """Where they stand in the store's table, int [n_prompts]."""

    def of(self, category: int) -> np.ndarray:
        """Return the prompts of a category, int."""
        return np.flatnonzero(self.category == category)

    def groups(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Yield ``refused`` and ``complied``, each with the rows of every category."""
        for name, did in (("refused", self.refused), ("complied", ~self.refused)):
            yield name, [np.flatnonzero(did & (self.category == c)) for c in range(len(self.categories))]


def write_features(
    folder: Path, chat: ChatModel, store: ActivationStore, saes: Mapping[Site, Dictionary]
) -> dict[str, Any]:
    """Describe the features of the circuits in a folder, and write ``features.json`` there.

    Raises:
        InputError: A circuit cannot be read, or the disk refuses to write.
    """
    circuits = [load_circuit(path) for path in sorted(folder.glob("*_circuit.json"))]
    found = describe(chat, store, saes, [circuit for circuit in circuits if circuit.side == "all"])
    write_json(folder / FEATURES, found)
    return found


def describe(
    chat: ChatModel, store: ActivationStore, saes: Mapping[Site, Dictionary], circuits: Sequence[Circuit]
) -> dict[str, Any]:
    """Return the content of ``features.json``.

    Args:
        chat: The model.
        store: Its activations.
        saes: Autoencoders by site, on the model's device.
        circuits: Of all categories.
    """
    prompts = _prompts(store)
    chosen = _chosen(circuits)
    features: list[dict[str, Any]] = []
    wanted: dict[Site, list[list[int]]] = {}
    for site, numbers in chosen.items():
        f = _activations(saes[site], torch.from_numpy(store.last(site)[prompts.rows]), numbers, chat.device)
        wanted[site] = [_top(prompts, column) for column in f.T]
        features += [
            {"site": str(site), "feature": number, "maximum": _short(f[:, i].max()), **_by_group(prompts, f[:, i])}
            for i, number in enumerate(numbers)
        ]
        _add_weights(features[-len(numbers) :], chat, saes[site])
    rows = sorted({row for of_site in wanted.values() for rows in of_site for row in rows})
    encoded = [chat.encode(prompts.texts[row], store.max_prompt_tokens) for row in rows]
    _add_top(features, chat, saes, chosen, wanted, dict(zip(rows, encoded, strict=True)))
    return {
        "schema_version": SCHEMA_VERSION,
        "categories": prompts.categories,
        "n_prompts": {name: [len(rows) for rows in by_category] for name, by_category in prompts.groups()},
        "prompts": [_prompt(chat, prompts, row, one) for row, one in zip(rows, encoded, strict=True)],
        "features": features,
    }


def _prompts(store: ActivationStore) -> Prompts:
    rows = np.flatnonzero(store.evidence())
    table = store.prompts().iloc[rows]
    categories, category = np.unique(table["category"].to_numpy(dtype=str), return_inverse=True)
    return Prompts(
        ids=table["id"].tolist(),
        texts=table["text"].tolist(),
        splits=table["split"].tolist(),
        categories=categories.tolist(),
        category=category,
        refused=table["refused"].to_numpy(dtype=bool),
        rows=rows,
    )


def _chosen(circuits: Sequence[Circuit]) -> dict[Site, list[int]]:
    """The features to be described, by site."""
    nodes = {(parse_site(node.site), node.feature) for circuit in circuits for node in strongest(circuit)}
    chosen: dict[Site, list[int]] = {}
    for site, feature in sorted(nodes):
        if feature != ERROR:
            chosen.setdefault(site, []).append(feature)
    return chosen


def _activations(sae: Dictionary, x: Tensor, numbers: Sequence[int], device: torch.device) -> np.ndarray:
    """Return some features of activations [n, d_model], float32 [n, n_features]."""
    with torch.no_grad():
        parts = [sae.encode(part.to(device).float())[:, list(numbers)].float().cpu() for part in x.split(ROWS)]
    return torch.cat(parts).numpy()


def _by_group(prompts: Prompts, f: np.ndarray) -> dict[str, Any]:
    """Mean activation, and how often it is active, by category and by what the model did."""
    groups = dict(prompts.groups())
    return {
        "mean": {name: [_short(f[rows].mean()) if len(rows) else None for rows in g] for name, g in groups.items()},
        "share": {
            name: [_short((f[rows] > 0).mean()) if len(rows) else None for rows in g] for name, g in groups.items()
        },
    }


def _top(prompts: Prompts, f: np.ndarray) -> list[int]:
    """Return the strongest prompt of each category, of those categories that have the strongest."""
    best = [max(rows, key=lambda row: f[row]) for c in range(len(prompts.categories)) if len(rows := prompts.of(c))]
    return [int(row) for row in sorted(best, key=lambda row: -f[row])[:N_PROMPTS] if f[row] > 0]


def _add_weights(features: Sequence[dict[str, Any]], chat: ChatModel, sae: Dictionary) -> None:
    """Read off what features of one site write towards, and what is near them."""
    with torch.no_grad():
        directions = torch.nn.functional.normalize(sae.directions.float(), dim=1)
        numbers = torch.tensor([feature["feature"] for feature in features], device=directions.device)
        own = directions[numbers]
        cosines = own @ directions.T
    cosines[torch.arange(len(own)), numbers] = -2.0  # not its own neighbour
    near = cosines.topk(min(N_NEIGHBOURS, len(directions) - 1))
    for feature, values, others in zip(features, near.values.tolist(), near.indices.tolist(), strict=True):
        feature["neighbours"] = [[other, _short(value)] for other, value in zip(others, values, strict=True)]
    for start in range(0, len(own), BATCH):
        logits = logit_lens(chat.model, own[start : start + BATCH])
        for end, sign in (("raises", 1), ("lowers", -1)):
            most = (sign * logits).topk(min(N_TOKENS, logits.shape[1]))
            for i, feature in enumerate(features[start : start + BATCH]):
                pairs = zip(most.indices[i].tolist(), most.values[i].tolist(), strict=True)
                feature[end] = [[chat.tokenizer.decode([token]), _short(sign * value)] for token, value in pairs]


def _add_top(
    features: Sequence[dict[str, Any]],
    chat: ChatModel,
    saes: Mapping[Site, Dictionary],
    chosen: Mapping[Site, Sequence[int]],
    wanted: Mapping[Site, Sequence[Sequence[int]]],
    encoded: Mapping[int, Encoded],
) -> None:
    """Run the top prompts, and say where in them each feature is active.

    Args:
        features: In the order of ``chosen``.
        chat: The model.
        saes: Autoencoders by site.
        chosen: The features of each site.
        wanted: For each of these the prompts that are shown, the strongest first.
        encoded: The prompts.
    """
    active: dict[tuple[Site, int, int], list[list[float]]] = {}
    for batch in _batches(encoded):
        padded = chat.pad([encoded[row] for row in batch], "left")
        with torch.no_grad(), reading(chat.model, chosen) as read:
            chat.model(**padded.inputs(), use_cache=False, logits_to_keep=1)
        for site, numbers in chosen.items():
            here = [row for row in batch if any(row in rows for rows in wanted[site])]
            if here:
                x = [read[site][batch.index(row), -len(encoded[row].ids) :][_shown(encoded[row])] for row in here]
                f = _activations(saes[site], torch.cat(x), numbers, chat.device)
                for row, codes in zip(here, np.split(f, np.cumsum([len(part) for part in x])[:-1]), strict=True):
                    found = [i for i, rows in enumerate(wanted[site]) if row in rows]
                    active.update({(site, i, row): _where(codes[:, i]) for i in found})
    order = {row: number for number, row in enumerate(encoded)}
    places = [(site, i) for site, numbers in chosen.items() for i in range(len(numbers))]
    for feature, (site, i) in zip(features, places, strict=True):
        feature["top"] = [{"prompt": order[row], "activations": active[site, i, row]} for row in wanted[site][i]]


def _batches(encoded: Mapping[int, Encoded]) -> Iterator[list[int]]:
    """Prompts of similar length together, at most ``ROWS`` tokens in all."""
    batch: list[int] = []
    for row in sorted(encoded, key=lambda row: len(encoded[row].ids)):
        if batch and (len(batch) + 1) * len(encoded[row].ids) > ROWS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _shown(prompt: Encoded) -> np.ndarray:
    """Return which tokens of a prompt are shown, int: from the instruction on, the middle of a long one left out."""
    own = np.flatnonzero(np.isin(prompt.kinds, (INSTRUCTION, TEMPLATE)))
    return own if len(own) <= HEAD + TAIL else np.concatenate([own[:HEAD], own[-TAIL:]])


def _where(f: np.ndarray) -> list[list[float]]:
    return [[int(token), _short(f[token])] for token in np.flatnonzero(f > 0)]


def _prompt(chat: ChatModel, prompts: Prompts, row: int, encoded: Encoded) -> dict[str, Any]:
    shown = _shown(encoded)
    n_own = int(np.isin(encoded.kinds, (INSTRUCTION, TEMPLATE)).sum())
    return {
        "id": prompts.ids[row],
        "category": prompts.categories[int(prompts.category[row])],
        "split": prompts.splits[row],
        "refused": bool(prompts.refused[row]),
        "tokens": [_text_of(chat, encoded.ids, int(place)) for place in shown],
        "left_out": n_own - len(shown),
    }


def _text_of(chat: ChatModel, ids: Sequence[int], place: int) -> str:
    """Return what a token adds to the text before it: some tokenizers write the space only between two."""
    before = chat.tokenizer.decode(ids[place - 1 : place]) if place else ""
    both = chat.tokenizer.decode(ids[max(0, place - 1) : place + 1])
    return both[len(before) :] if both.startswith(before) else chat.tokenizer.decode([ids[place]])


def _short(value: float) -> float:
    """Four significant digits: what a page can show, in half the bytes."""
    return float(f"{value:.4g}")
