"""What the model did: which tokens open its refusals, each prompt's refusal score, and how often it refused.

The tokens come from the responses to the calibration fold, so its prompts are run first. Until the last of them
has answered, a calibration shard waits as ``<file>.unscored``, with its logits beside it; then the scores are filled
in and it gets its final name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refusal import InputError
from refusal.activations.plan import CALIBRATION
from refusal.activations.shard import column, open_shard, replace_column
from refusal.activations.space import writing
from refusal.models.refusal_score import refusal_score
from refusal.progress import warn

MIN_AUC = 0.9
JUDGED = tuple(
    f"prompts/{name}" for name in ("refused", "by_phrases", "by_score", "refusal_score", "split", "fold", "variant")
)


def unscored_path(path: Path) -> Path:
    """Where a shard waits for its scores."""
    return path.with_name(path.name + ".unscored")


def logits_path(path: Path) -> Path:
    """Where its logits [n_prompts, vocab] wait meanwhile."""
    return path.with_name(path.name + ".logits.npy")


def current_path(path: Path) -> Path:
    """Where a published shard is: waiting, or done."""
    waiting = unscored_path(path)
    return waiting if waiting.exists() else path


def is_published(path: Path) -> bool:
    """Whether a shard has been written, scored or not."""
    return current_path(path).exists()


def read_columns(paths: Sequence[Path], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return columns such as ``prompts/refused`` of these shards, scored or not, one shard after the other."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in paths:
        with open_shard(current_path(path)) as file:
            for name in parts:
                parts[name].append(column(file, name))
    return {name: np.concatenate(values) for name, values in parts.items()}


def originals(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of ``/prompts`` in a table without the prompts that were made from others."""
    keep = table["prompts/variant"] == ""
    return {name: values[keep] for name, values in table.items() if name.startswith("prompts/")}


def judged(by_phrases: np.ndarray, by_score: np.ndarray, rule: str) -> np.ndarray:
    """Return whether each prompt counts as refused, by one of ``RULES``; all bool [n_prompts].

    By ``both``, a prompt on which the two disagree is not refused, nor has it a part in comparisons (``evidence``).
    """
    return {"phrases": by_phrases, "score": by_score, "both": by_phrases & by_score}[rule]


def check_refusals(refused: np.ndarray, responses: np.ndarray, failures: np.ndarray, rule: str) -> None:
    """Raise an ``InputError`` if the model refused none of the prompts, or all: there is nothing to compare.

    Args:
        refused: Whether each prompt was refused, bool [n_prompts].
        responses: [n_prompts].
        failures: Why other prompts could not be run.
        rule: By which of ``RULES``.
    """
    if not len(refused):
        raise InputError(f"none of the prompts could be run; the first: {failures[0]}")
    n_refused = int(refused.sum())
    if 0 < n_refused < len(refused):
        return
    openings = ", ".join(repr(" ".join(response.split()[:6])) for response in responses[:3])
    by = {"phrases": "the phrases in model.refusal_phrases", "score": "the sign of the refusal score"}.get(
        rule, "the phrases and the refusal score together"
    )
    raise InputError(
        f"the model {'always' if n_refused else 'never'} refuses: {n_refused} of {len(refused)} prompts, "
        f"by {by} (responses begin {openings or 'not at all'}); choose another model, data or phrases"
    )


def score_shard(path: Path, token_ids: Sequence[int], rule: str) -> None:
    """Fill a waiting shard's scores in and give it its final name; a shard that is done stays as it is."""
    waiting, logits = unscored_path(path), logits_path(path)
    if waiting.exists():
        scores = refusal_score(torch.from_numpy(np.load(logits, allow_pickle=False)), token_ids).numpy()
        with writing(waiting, "r+") as file:
            replace_column(file, "prompts/refusal_score", scores)
            replace_column(file, "prompts/by_score", scores > 0)
            replace_column(file, "prompts/refused", judged(column(file, "prompts/by_phrases"), scores > 0, rule))
        waiting.replace(path)
    logits.unlink(missing_ok=True)  # a killed process may have left no more than these


def summary(table: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the refusal rate of each split, how well the score tells refused prompts, and how often labels agree.

    Prompts made from others are no observations of their own: they are left out.

    Args:
        table: The columns ``JUDGED`` of all prompts; the area under the ROC is that of prompts outside calibration.
    """
    table = originals(table)
    refused, split = table["prompts/refused"], table["prompts/split"]
    unseen = table["prompts/fold"] != CALIBRATION
    auc = area_under_roc(table["prompts/refusal_score"][unseen], refused[unseen])
    if auc is not None and auc < MIN_AUC:
        warn(
            f"the refusal score tells refused prompts from others badly (area under the ROC {auc:.2f}, under {MIN_AUC})"
        )
    rates = {name: float(refused[split == name].mean()) for name in sorted(set(split.tolist()))}
    agreement = float((table["prompts/by_phrases"] == table["prompts/by_score"]).mean())
    return {"refusal_rate": rates, "score_auc": auc, "agreement": agreement}


def area_under_roc(scores: np.ndarray, refused: np.ndarray) -> float | None:
    """Return how often a refused prompt scores above a complied one, ties half; None without both."""
    above, below = scores[refused], np.sort(scores[~refused])
    if not len(above) or not len(below):
        return None
    ranks = (np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")) / 2
    return float(ranks.mean() / len(below))
