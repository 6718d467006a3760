"""A trained autoencoder as pictures and tables read it: its history, and what tells it from others.

Both are read from its folder: ``history.json``, and from ``card.json`` the options that it was trained with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from refusal import InputError
from refusal.artifacts import CARD, read_json
from refusal.models.sites import Site, parse_site

HISTORY = "history.json"
KEYS = ("model", "site", "hidden_dim", "train", "heldout")
RESOLVED = (
    "name",
    "target",
    "hidden_dim",
    "expansion_factor",
    "k",
    "k_percent",
    "scope",
)  # the history says what came of them
REPLICATES = ("seed", "also_seeds", "at_once")  # autoencoders that differ only in these are averaged
WORDS = {"name": "{}", "part": "{} prompts", "hidden_dim": "{:,} features", "k": "k = {}", "seed": "seed {}"}


@dataclass(frozen=True)
class Trained:
    """A trained autoencoder, without its weights."""

    folder: Path
    history: Mapping[str, Any]
    settings: Mapping[str, object]
    """What may differ between two of a site, seeds left out: architecture, sizes, other options, activations."""

    @property
    def site(self) -> Site:
        """Where in the model."""
        return parse_site(self.history["site"])

    @property
    def part(self) -> str:
        """Which prompts it was trained on: ``safe``, ``toxic``, a category, or ``all``."""
        return self.history.get("part") or "all"

    @property
    def rows(self) -> int | None:
        """How many rows it has seen in training."""
        return self.history["train"][-1]["rows"] if self.history["train"] else None

    def figure(self, name: str, split: str | None = None) -> float | None:
        """Return a held-out figure; None where it is not known.

        Args:
            name: Which.
            split: Of the rows of a split; None: of all rows, or those of the split or category it was trained on.
        """
        heldout = self.history["heldout"]
        strata = {"all": heldout, **heldout.get("categories", {}), **heldout.get("splits", {})}
        return strata.get(self.part if split is None else split, {}).get("all", {}).get(name)


def read_trained(folder: Path) -> Trained:
    """Read what the folder of an autoencoder says of it.

    Raises:
        InputError: It has no history of a training, or a damaged one.
    """
    history = read_history(folder / HISTORY)
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    return Trained(folder, history, _settings(history, card))


def read_history(path: Path) -> dict[str, Any]:
    """Read a ``history.json``.

    Raises:
        InputError: There is no such file, or it is not a training's history.
    """
    history = read_json(path)
    missing = [key for key in KEYS if key not in history] if isinstance(history, dict) else list(KEYS)
    if missing:
        raise InputError(f"{path} is not the history of a training: it lacks {', '.join(missing)}")
    return history


def find_trained(model: Path) -> list[Trained]:
    """Read all autoencoders in a model's folder, the oldest first.

    Raises:
        InputError: There are none, or one has a damaged history.
    """
    paths = sorted(model.glob(f"saes/*/*/{HISTORY}"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise InputError(f"there are no trained autoencoders in {model / 'saes'}; train them with train.py")
    return [read_trained(path.parent) for path in paths]


def labels(settings: Iterable[Mapping[str, object]]) -> list[str]:
    """Say of each set of settings what tells it from the others; nothing where there are no others."""
    settings = list(settings)
    names = list(dict.fromkeys(name for one in settings for name in one))
    values = {name: {str(one[name]) for one in settings if name in one} for name in names}
    telling = [name for name in names if len(values[name]) > 1]
    return [", ".join(in_words(name, one[name]) for name in telling if name in one) for one in settings]


def replicates(trained: Sequence[Trained]) -> list[tuple[Mapping[str, object], list[Trained]]]:
    """Put those together that differ in nothing but site and seed, in the order in which they come."""
    groups: dict[str, tuple[Mapping[str, object], list[Trained]]] = {}
    for one in trained:
        groups.setdefault(str(one.settings), (one.settings, []))[1].append(one)
    return list(groups.values())


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are there; None without any.

    Not the mean: where a site hardly varies, a few rows make its FVU as large as you like.
    """
    known = [value for value in values if value is not None]
    return median(known) if known else None


def in_words(name: str, value: object) -> str:
    """Say what a setting is, as short as a legend needs it."""
    return WORDS[name].format(value) if name in WORDS else f"{name.rpartition('.')[2]} {value}"


def _settings(history: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, object]:
    config = card.get("config", {})
    sae, sampler = config.get("sae", {}), config.get("sampler", {})
    settings = {
        "name": sae.get("name"),
        "part": history.get("part") or "all",
        "hidden_dim": history["hidden_dim"],
        "k": history.get("k"),
        **{f"sae.{name}": value for name, value in sae.items() if name not in (*RESOLVED, *REPLICATES)},
        "sampler": ".".join(sampler.get("target", "").split(".")[-2:-1]) or None,
        **{f"sampler.{name}": value for name, value in sampler.items() if name != "target"},
        "precision": config.get("trainer", {}).get("precision"),
        "activations": str(card.get("content", ""))[:6] or None,
    }
    return {name: value for name, value in settings.items() if value is not None}
