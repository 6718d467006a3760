"""What a collection will take: rows and bytes counted, time and memory measured on a few batches of its own.

Prompts are encoded and shards planned as the collection does it, so that the number of rows is exact. Then a few of its
batches, spread over the lengths, go through the code of the collection, and two of them are written as shards. Time is
fitted to what a batch has of tokens and prompts; memory is what the largest batch took, and what waits to be written.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from refusal import InputError
from refusal.activations.buffer import ShardBuffer
from refusal.activations.encoding import DTYPES
from refusal.activations.fill import MEMORY_BYTES, QUEUE
from refusal.activations.forward import BatchResult
from refusal.activations.parts import BatchParts
from refusal.activations.plan import CALIBRATION, ShardPlan, batches, waves
from refusal.activations.study import Study
from refusal.models.chat import ChatModel
from refusal.models.tokens import TOKEN_KINDS

PLACES = (1, 0.5, 0.25, 0.75, 0.1)  # of measured batches, where all stand in the order of their padded tokens
MOST_BATCHES, MOST_SHARE = 6, 0.25  # that are measured, of all; but two in any case
ENOUGH_SECONDS = 60.0  # no further batch is measured after that, for a model that is slow here


@dataclass(frozen=True)
class Cost:
    """What a collection will take, as measured on some of its batches."""

    seconds: float
    """Running and writing all batches, without what comes before (loading, encoding)."""
    peak_bytes: int | None
    """Largest resident memory of the process; None where the system does not tell."""
    device_bytes: int | None
    """Largest memory on the GPU; None without one."""
    n_measured: int
    n_batches: int


def activation_bytes(study: Study, chat: ChatModel) -> int:
    """Return the bytes of all activations and component writes, exactly; at most, if response tokens are kept."""
    n_prompts = len(study.prompts) - len(study.failed)
    rows = study.most_rows * len(study.recipe.sites)
    writes = n_prompts * chat.n_layers * 2 * study.recipe.writes
    return (rows + writes) * chat.d_model * DTYPES[study.recipe.dtype].itemsize


def measure(chat: ChatModel, study: Study, folder: Path, *, token_budget: int, compression: str | None) -> Cost:
    """Run some of the collection's batches, and write two as shards.

    Args:
        chat: The model, with its weights.
        study: What will be collected.
        folder: Where a temporary folder can be made, on the disk that the store will be on.
        token_budget: Padded tokens of a batch.
        compression: Of the activations on disk.

    Raises:
        InputError: An activation is not finite, a batch does not fit the memory, or the disk refuses to write.
    """
    all_batches = [batch for some in _phases(study) for wave in some for batch in _batches(study, wave, token_budget)]
    if not all_batches:
        raise InputError("none of the prompts can be run; collect.too_long=truncate cuts those that are too long")
    chosen = _spread(study, all_batches)
    loading = _status("VmHWM")
    per_shard, per_byte = _writing(chat, study, chosen[0], folder, compression)  # which also warms up
    _reset_peaks(chat)
    before = _status("VmRSS")
    seconds: list[float] = []
    while len(seconds) < len(chosen) and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        _run(chat, study, chosen[len(seconds)])
        seconds.append(time.perf_counter() - start)
    extra = _status("VmHWM") - before - _result_bytes(chat, study, chosen[0])
    running = _fitted(_features(study, chosen[: len(seconds)]), np.array(seconds), _features(study, all_batches))
    writing = per_shard * len(study.shards) + per_byte * activation_bytes(study, chat)
    peak = max(loading, before + extra + _waiting(chat, study, token_budget)) if before else None
    return Cost(float(running.sum()) + writing, peak, _device_peak(chat), len(seconds), len(all_batches))


def _phases(study: Study) -> list[list[list[ShardPlan]]]:
    """Return the waves of the calibration fold, which is run first, and those of the others."""
    first = [shard for shard in study.shards if shard.fold == CALIBRATION]
    return [list(waves(first)), list(waves([shard for shard in study.shards if shard not in first]))]


def _batches(study: Study, wave: Sequence[ShardPlan], token_budget: int) -> list[list[int]]:
    """Return a wave's batches, as places in the study."""
    members = [i for shard in wave for i in shard.prompts if i not in study.failed]
    return [
        [members[j] for j in batch] for batch in batches([len(study.encoded[i].ids) for i in members], token_budget)
    ]


def _spread(study: Study, all_batches: Sequence[list[int]]) -> list[list[int]]:
    """Return the batches of the most padded tokens and of the most prompts, then others of all sizes in between."""
    features = _features(study, all_batches)
    order = np.argsort(-features[:, 1], kind="stable")
    places = [order[0], features[:, 3].argmax(), *(order[round(place * (len(order) - 1))] for place in PLACES)]
    n_wanted = min(max(2, math.ceil(len(order) * MOST_SHARE)), MOST_BATCHES)
    return [all_batches[i] for i in list(dict.fromkeys(places))[:n_wanted]]


def _features(study: Study, some: Sequence[list[int]]) -> np.ndarray:
    """Return what the time of a batch depends on: itself, its padded tokens, pairs of them, its prompts; [n, 4]."""
    widths = [max(len(study.encoded[i].ids) for i in batch) for batch in some]
    return np.array([[1, n * width, n * width**2, n] for n, width in zip(map(len, some), widths, strict=True)], float)


def _fitted(measured: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the time of all batches by a fit, whose parts cannot be negative, to those measured."""
    scale = measured.max(0)
    weights, _ = nnls(measured / scale, seconds)
    return wanted / scale @ weights


def _run(chat: ChatModel, study: Study, batch: Sequence[int]) -> BatchResult:
    try:
        return study.run(chat, batch)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"a batch of {len(batch)} prompts does not fit the memory; lower collect.token_budget"
        ) from error


def _writing(
    chat: ChatModel, study: Study, batch: Sequence[int], folder: Path, compression: str | None
) -> tuple[float, float]:
    """Return the seconds that a shard takes, and a byte of activations, from writing one prompt and a whole batch."""
    seconds = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".plan-") as temporary:
        for some in (batch[:1], batch):
            result = _run(chat, study, some)
            start = time.perf_counter()
            _write(chat, study, some, result, Path(temporary), compression)
            seconds.append(time.perf_counter() - start)
    sizes = [_result_bytes(chat, study, some) for some in (batch[:1], batch)]
    return seconds[0], max(0.0, seconds[1] - seconds[0]) / max(1, sizes[1] - sizes[0])


def _write(
    chat: ChatModel, study: Study, batch: Sequence[int], result: BatchResult, folder: Path, compression: str | None
) -> None:
    """Write a batch as one shard."""
    recipe, file = study.recipe, "shard.h5"
    parts = BatchParts(study, batch, result, None, sorted(chat.special_ids))
    buffer = ShardBuffer(
        folder,
        batch,
        recipe.sites,
        d_model=chat.d_model,
        dtype=recipe.dtype,
        kinds=TOKEN_KINDS,
        seed=(recipe.seed,),
        memory_bytes=MEMORY_BYTES,
    )
    for _, part in parts.by_shard(dict.fromkeys(batch, file)):
        buffer.add(part)
    logits = folder / "logits.npy" if recipe.learns_tokens else None
    buffer.write(folder / file, compression=compression, logits_path=logits)


def _waiting(chat: ChatModel, study: Study, token_budget: int) -> int:
    """Return the most bytes that wait to be written at a time.

    While a wave's shards fill, a batch comes on top of what is held; while they are written, one site after another,
    the next wave's first batches queue up. The calibration fold is written whole before the others begin.
    """
    most = 0
    for some in _phases(study):
        sizes = [[_result_bytes(chat, study, batch) for batch in _batches(study, wave, token_budget)] for wave in some]
        for wave, here, coming in zip(some, sizes, [*sizes[1:], []], strict=True):
            held, logits = min(sum(here), MEMORY_BYTES), _logits_bytes(chat, study, wave)
            filling = min(sum(here), held + max(here, default=0))
            writing = held + sum(coming[:QUEUE]) + max(_site_bytes(chat, study, shard) for shard in wave)
            most = max(most, max(filling, writing) + logits)
    return most


def _result_bytes(chat: ChatModel, study: Study, batch: Sequence[int]) -> int:
    """Bytes of a batch's activations and component writes."""
    n_rows = sum(len(study.positions[i]) + study.recipe.response_positions for i in batch)
    numbers = n_rows * len(study.recipe.sites) + len(batch) * chat.n_layers * 2 * study.recipe.writes
    return numbers * chat.d_model * DTYPES[study.recipe.dtype].itemsize


def _site_bytes(chat: ChatModel, study: Study, shard: ShardPlan) -> int:
    """Bytes of one site's rows in a shard, which are put in order when it is written."""
    n_rows = sum(len(study.positions[i]) + study.recipe.response_positions for i in shard.prompts)
    return n_rows * chat.d_model * DTYPES[study.recipe.dtype].itemsize


def _logits_bytes(chat: ChatModel, study: Study, wave: Sequence[ShardPlan]) -> int:
    """Bytes of the logits that wait for the refusal tokens."""
    n_prompts = sum(len(shard.prompts) for shard in wave if shard.fold == CALIBRATION)
    return n_prompts * chat.model.config.get_text_config().vocab_size * 4 * study.recipe.learns_tokens


def _status(name: str) -> int:
    """Return a line of Linux's account of this process, in bytes; 0 on other systems."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _reset_peaks(chat: ChatModel) -> None:
    """Have the system forget the largest memory so far; where it refuses, that of loading is counted with batches."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if chat.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(chat.device)


def _device_peak(chat: ChatModel) -> int | None:
    return torch.cuda.max_memory_allocated(chat.device) if chat.device.type == "cuda" else None
