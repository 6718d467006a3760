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
from pathlib import Path
from typing import Any

from filelock import FileLock

from refusal import InputError
from refusal.activations import labels
from refusal.activations.encoding import check_dtype
from refusal.activations.fill import Filler
from refusal.activations.plan import CALIBRATION, ShardPlan, check_disk
from refusal.activations.shard import dataset, open_shard
from refusal.activations.store import MANIFEST, SCHEMA_VERSION, ActivationStore, is_complete
from refusal.activations.study import Options, Study, make_study
from refusal.artifacts import read_json, write_json
from refusal.models.chat import ChatModel
from refusal.models.refusal_score import REFUSAL_PHRASES, choose_refusal_tokens
from refusal.models.sites import Site
from refusal.progress import say, warn
from refusal.prompts.prompt import Prompt

PLAN = "plan.json"
LOCK = ".plan.lock"
LABELS = ("prompts/refused", "prompts/response", "failed/why")
JUDGED = ("prompts/refused", "prompts/refusal_score", "prompts/split", "prompts/fold")


def collect(  # noqa: PLR0913  the options of a collection, each of its own
    chat: ChatModel,
    prompts: Sequence[Prompt],
    sites: Sequence[Site],
    folder: Path,
    *,
    response_tokens: int = 16,
    token_budget: int = 4096,
    seed: int = 0,
    phrases: Sequence[str] = REFUSAL_PHRASES,
    refusal_tokens: Sequence[int] | None = None,
    max_rows: int = 2_000_000,
    writes: bool = True,
    dtype: str = "float32",
    card: Mapping[str, Any],
) -> ActivationStore:
    """Collect activations into a folder, or go on with what a killed run left there, or find it complete.

    Args:
        chat: The model.
        prompts: The prompts, with their folds.
        sites: Where to read activations.
        folder: The store; its name should have the fingerprint of everything that changes the content.
        response_tokens: Greatest length of the greedy responses.
        token_budget: Padded tokens of a batch; halved whenever memory runs out. Does not change the content.
        seed: What the order of prompts and rows follows from.
        phrases: Openings by which a response counts as a refusal.
        refusal_tokens: Tokens that open refusals; learnt from the calibration fold if None.
        max_rows: Past it, each prompt gives a random sample of its rows, always with the last position.
        writes: Whether to keep what every component of every layer adds at the last position.
        dtype: Type on disk, ``float32`` or ``bfloat16``.
        card: What made this, put into the manifest.

    Raises:
        InputError: The disk is too small or refuses, the model never or always refuses, no prompt could be run, or
            activations are not finite.
    """
    folder = Path(folder)
    if is_complete(folder):
        say("activations", "found", folder)
        return ActivationStore(folder)
    started = time.monotonic()
    check_dtype(dtype)
    options = Options(
        sites=tuple(sorted(sites)),
        response_tokens=response_tokens,
        seed=seed,
        phrases=tuple(phrases),
        refusal_tokens=_checked_tokens(chat, refusal_tokens),
        max_rows=max_rows,
        writes=writes,
        dtype=dtype,
    )
    study = make_study(chat, prompts, options)
    n_before = _prepare(chat, study, folder)
    filler = Filler(chat, study, folder, token_budget)
    tokens = _calibrate(filler, study, folder)
    filler.fill([shard for shard in study.shards if shard.fold != CALIBRATION], tokens)
    manifest = {**card, **options.as_json(), "n_layers": chat.n_layers, "d_model": chat.d_model}
    manifest |= {"refusal_tokens": tokens, "seconds": round(time.monotonic() - started, 1)}
    with FileLock(folder / LOCK):
        if not is_complete(folder):
            _finish(folder, study, manifest)
    for lock in folder.glob(".*.lock"):
        lock.unlink(missing_ok=True)
    say("activations", "resumed" if n_before else "built", folder)
    return ActivationStore(folder)


def _checked_tokens(chat: ChatModel, tokens: Sequence[int] | None) -> tuple[int, ...] | None:
    if tokens is None:
        return None
    vocab = chat.model.config.vocab_size
    for token in tokens:
        if not 0 <= token < vocab:
            raise InputError(f"model.refusal_tokens: {token} is not a token of {chat.name}, which has {vocab}")
    if not tokens:
        raise InputError("model.refusal_tokens is empty; leave it null to learn the tokens from the model's responses")
    return tuple(tokens)


def _prepare(chat: ChatModel, study: Study, folder: Path) -> int:
    """Write the plan, or check what an earlier run left of the same one; return how many shards are there."""
    shards = {shard.file: [study.prompts[i].id for i in shard.prompts] for shard in study.shards}
    plan = {**study.options.as_json(), "shards": shards}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
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


def _calibrate(filler: Filler, study: Study, folder: Path) -> list[int]:
    """Run the calibration fold, and return the refusal tokens, learnt from it unless they were given."""
    given = study.options.refusal_tokens
    shards = [shard for shard in study.shards if shard.fold == CALIBRATION]
    if not shards and given is None:
        raise InputError("no prompt is in the calibration fold, so give model.refusal_tokens=[...]")
    filler.fill(shards, given)
    if given is not None:
        return list(given)
    paths = [folder / shard.file for shard in shards]
    table = labels.read_columns(paths, ("prompts/first_token", *LABELS))
    with _kept_only_if_judged(folder):
        labels.check_refusals(*(table[name] for name in LABELS))
        tokens = choose_refusal_tokens(table["prompts/first_token"].tolist(), table["prompts/refused"].tolist())
    with FileLock(folder / ".scores.lock"):
        for path in paths:
            labels.score_shard(path, tokens)
    return tokens


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
    table = labels.read_columns(paths, (*LABELS, *JUDGED, "failed/id"))
    with _kept_only_if_judged(folder):
        labels.check_refusals(*(table[name] for name in LABELS))
    failed = [
        {"id": prompt_id, "why": why}
        for prompt_id, why in zip(table["failed/id"].tolist(), table["failed/why"].tolist(), strict=True)
    ]
    if failed:
        warn(f"{len(failed)} of {len(study.prompts)} prompts could not be run; the first: {failed[0]['why']}")
    shards = [_entry(path, shard) for path, shard in zip(paths, study.shards, strict=True)]
    write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            **content,
            **labels.summary(*(table[name] for name in JUDGED)),
            "n_rows": sum(shard["n_rows"] for shard in shards),
            "shards": shards,
            "failed": failed,
        },
    )


def _entry(path: Path, shard: ShardPlan) -> dict[str, Any]:
    """Return what the manifest says of a shard."""
    with open_shard(path) as file:
        counts = {"n_prompts": len(dataset(file, "prompts/id")), "n_rows": len(dataset(file, "rows/prompt"))}
    name = {"file": shard.file, "category": shard.category, "split": shard.split, "fold": shard.fold}
    return {**name, **counts, "bytes": path.stat().st_size}
