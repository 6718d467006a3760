"""Run every prompt once and keep its activations, its component writes, its response and its refusal score.

1. Encode the prompts, plan the shards, and check that they fit the disk.
2. Run the calibration fold; learn from its responses which tokens open refusals.
3. Run the other folds, scored at once.
4. Write ``manifest.json``: only now is the store complete.

A shard under its final name is whole and is not made again: a collection that was killed goes on where it was,
and several processes can fill one folder together, each locking what it works on. Rows and labels travel with their
prompt's place in the study, so a prompt that fails is missing, and nothing shifts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from refusal import InputError
from refusal.activations import labels
from refusal.activations.fill import Filler
from refusal.activations.plan import CALIBRATION, ShardPlan, check_disk
from refusal.activations.portion import Portion
from refusal.activations.recipe import Recipe
from refusal.activations.shard import dataset, open_shard, read_sections
from refusal.activations.store import MANIFEST, SCHEMA_VERSION, is_complete
from refusal.activations.study import Study, make_study, max_tokens
from refusal.artifacts import read_json, write_json
from refusal.models.chat import ChatModel
from refusal.models.refusal_score import choose_refusal_tokens
from refusal.progress import say, warn
from refusal.prompts.prompt import Prompt

PLAN = "plan.json"
LOCK = ".plan.lock"


def collect(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    recipe: Recipe,
    folder: Path,
    *,
    portion: Portion | None = None,
    token_budget: int = 4096,
    compression: str | None = None,
    card: Mapping[str, Any],
) -> bool:
    """Collect activations into a folder, or go on with what a killed run left there, or find it complete.

    Several processes can share the work. All of them do the calibration fold together, and wait only for those that
    have begun a piece of it. Whoever finds all shards there writes the manifest.

    Args:
        chat: The model.
        prompts: The prompts, with their folds.
        recipe: What decides the content, beside the model and the prompts.
        folder: The store; its name should have the fingerprint of everything that changes the content.
        portion: Which part of the shards this process does; None does whatever nobody else does, and waits for the
            rest.
        token_budget: Padded tokens of a batch; halved whenever memory runs out. Changes the content by rounding only.
        compression: Of activations on disk, ``lzf`` or ``gzip``; does not change the content.
        card: What made this, put into the manifest.

    Returns:
        Whether the store is complete; always, if there are no portions.

    Raises:
        InputError: The disk is too small or refuses, the model never or always refuses, no prompt could be run, or
            activations are not finite.
    """
    folder = Path(folder)
    if is_complete(folder):
        say("activations", "found", folder)
        return True
    started = time.monotonic()
    recipe = replace(recipe, sites=tuple(sorted(recipe.sites)))
    _check_tokens(chat, recipe.refusal_tokens or ())
    study = make_study(chat, prompts, recipe)
    n_before = _prepare(chat, study, folder)
    filler = Filler(chat, study, folder, token_budget=token_budget, compression=compression)
    tokens = _calibrate(filler, study, folder)
    filler.fill([shard for shard in study.shards if shard.fold != CALIBRATION], tokens, portion)
    n_there = sum(labels.is_published(folder / shard.file) for shard in study.shards)
    if n_there < len(study.shards):
        say("activations", "partial", f"part {portion} is done: {n_there} of {len(study.shards)} shards are there")
        return False
    manifest = {**card, **recipe.as_json(), "n_layers": chat.n_layers, "d_model": chat.d_model}
    manifest |= {"max_prompt_tokens": max_tokens(chat, recipe), "refusal_tokens": tokens}
    manifest |= {"seconds": round(time.monotonic() - started, 1)}
    with FileLock(folder / LOCK):
        if not is_complete(folder):
            _finish(folder, study, manifest)
        for left in (*folder.glob(".*.lock"), *folder.glob(".*.tmp")):  # some by processes that were killed
            left.unlink(missing_ok=True)
    say("activations", "resumed" if n_before else "built", folder)
    return True


def _check_tokens(chat: ChatModel, tokens: Sequence[int]) -> None:
    vocab = chat.model.config.get_text_config().vocab_size
    for token in tokens:
        if not 0 <= token < vocab:
            raise InputError(f"model.refusal_tokens: {token} is not a token of {chat.name}, which has {vocab}")


def _prepare(chat: ChatModel, study: Study, folder: Path) -> int:
    """Write the plan, or check what an earlier run left of the same one; return how many shards are there."""
    shards = {shard.file: [study.prompts[i].id for i in shard.prompts] for shard in study.shards}
    plan = {**study.recipe.as_json(), "shards": shards}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if not is_complete(folder):  # as it may be by now
                (folder / MANIFEST).unlink(missing_ok=True)  # it names a shard that is gone
            if not (folder / PLAN).is_file() or read_json(folder / PLAN) != json.loads(json.dumps(plan)):
                for path in folder.glob("shard-*"):
                    path.unlink()
                write_json(folder / PLAN, plan)
            there = [shard for shard in study.shards if _is_intact(folder / shard.file, shard)]
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror or error}") from error
    share = 1 - len(there) / len(study.shards)
    check_disk(folder, int(study.bytes_needed(chat) * share) + study.temporary_bytes(chat))
    return len(there)


def _is_intact(path: Path, shard: ShardPlan) -> bool:
    """Whether an earlier run left this shard; one that cannot be read is removed, to be made again."""
    if not labels.is_published(path):
        return False
    try:
        with open_shard(labels.current_path(path)) as file:
            n_prompts = len(dataset(file, "prompts/id")) + len(dataset(file, "failed/id"))
    except InputError as error:
        warn(f"{error}: collecting it again")
        n_prompts = -1
    if n_prompts == len(shard.prompts):
        return True
    labels.current_path(path).unlink()
    return False


def _calibrate(filler: Filler, study: Study, folder: Path) -> list[int] | None:
    """Run the calibration fold; return the refusal tokens: given, or learnt from it, or None without responses."""
    recipe = study.recipe
    shards = [shard for shard in study.shards if shard.fold == CALIBRATION]
    if not recipe.learns_tokens:
        filler.fill(shards, recipe.refusal_tokens)
        return None if recipe.refusal_tokens is None else list(recipe.refusal_tokens)
    if not shards:
        raise InputError("no prompt is in the calibration fold, so give model.refusal_tokens=[...]")
    filler.fill(shards, None)
    paths = [folder / shard.file for shard in shards]
    with FileLock(folder / LOCK):  # nobody reads a shard while its scores are filled in
        tokens = _learn_tokens(paths, folder)
        for path in paths:
            labels.score_shard(path, tokens, recipe.refused_by)
    return tokens


def _learn_tokens(paths: Sequence[Path], folder: Path) -> list[int]:
    columns = ("prompts/first_token", "prompts/by_phrases", "prompts/response", "prompts/variant")
    table = labels.read_columns(paths, (*columns, "failed/why"))
    failures, table = table["failed/why"], labels.originals(table)
    by_phrases = table["prompts/by_phrases"]
    with _kept_only_if_judged(folder):
        labels.check_refusals(by_phrases, table["prompts/response"], failures, "phrases")
        return choose_refusal_tokens(table["prompts/first_token"].tolist(), by_phrases.tolist())


@contextmanager
def _kept_only_if_judged(folder: Path) -> Iterator[None]:
    """Remove what was collected if its labels are of no use: no later run could go on with it."""
    try:
        yield
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _finish(folder: Path, study: Study, content: Mapping[str, Any]) -> None:
    """Check the labels as a whole, and write the manifest, which makes the store complete."""
    paths = [folder / shard.file for shard in study.shards]
    table = labels.read_columns(paths, (*labels.JUDGED, "prompts/response", "failed/id", "failed/why"))
    with _kept_only_if_judged(folder):
        summary = _summary(table, study.recipe)
    failed = [
        {"id": prompt_id, "why": why}
        for prompt_id, why in zip(table["failed/id"].tolist(), table["failed/why"].tolist(), strict=True)
    ]
    if failed:
        warn(f"{len(failed)} of {len(study.prompts)} prompts could not be run; the first: {failed[0]['why']}")
    shards = [_entry(path, shard) for path, shard in zip(paths, study.shards, strict=True)]
    n_rows = sum(shard["n_rows"] for shard in shards)
    manifest = {"schema_version": SCHEMA_VERSION, **content, **summary}
    write_json(folder / MANIFEST, {**manifest, "n_rows": n_rows, "shards": shards, "failed": failed})


def _summary(table: Mapping[str, np.ndarray], recipe: Recipe) -> dict[str, Any]:
    """Return what the manifest says of the labels; raises where they are of no use."""
    if not recipe.has_scores:
        return {"labels": "none", "refusal_rate": {}, "score_auc": None, "agreement": None}
    labels.check_refusals(table["prompts/refused"], table["prompts/response"], table["failed/why"], recipe.refused_by)
    summary = {"labels": recipe.refused_by, **labels.summary(table)}
    return summary if recipe.has_responses else {**summary, "agreement": None}


def _entry(path: Path, shard: ShardPlan) -> dict[str, Any]:
    """Return what the manifest says of a shard."""
    with open_shard(path) as file:
        counts = {"n_prompts": len(dataset(file, "prompts/id")), "n_rows": len(dataset(file, "rows/prompt"))}
        sections = read_sections(file)
    name = {"file": shard.file, "category": shard.category, "split": shard.split, "fold": shard.fold}
    return {**name, **counts, "sections": sections, "bytes": path.stat().st_size}
