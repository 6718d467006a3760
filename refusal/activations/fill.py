"""Fill shards: run their prompts batch by batch while a thread writes what came before.

Waves of shards are claimed by file locks, so that several processes can work on one folder. Within a wave, prompts
of all its shards are batched together by length. A batch for which memory runs out is halved, and so are later
ones; one that fails otherwise is halved until the prompts that cannot be run stand alone.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from refusal import InputError
from refusal.activations import labels
from refusal.activations.buffer import ShardBuffer
from refusal.activations.forward import BatchResult
from refusal.activations.parts import BatchParts
from refusal.activations.plan import ShardPlan, batches, waves
from refusal.activations.portion import Portion
from refusal.activations.study import Study
from refusal.models.chat import ChatModel
from refusal.models.tokens import TOKEN_KINDS
from refusal.progress import track

Claim = tuple[Sequence[ShardPlan], FileLock]  # a wave that this process, and no other, works on

QUEUE = 4  # batches that may wait for the writing thread
MEMORY_BYTES = 1 << 30  # of rows in memory, all shards of a wave together


class Filler:
    """Runs prompts and writes shards.

    Args:
        chat: The model.
        study: The prompts and their shards.
        folder: Where the shards go.
        token_budget: Padded tokens of a batch.
        compression: Of the activations on disk; None stores them as they are.
    """

    def __init__(
        self, chat: ChatModel, study: Study, folder: Path, *, token_budget: int, compression: str | None
    ) -> None:
        self._chat, self._study, self._folder, self._budget = chat, study, folder, token_budget
        self._compression = compression
        self._special_ids = sorted(chat.special_ids)
        self._file_of = {i: shard.file for shard in study.shards for i in shard.prompts}
        self._number = {shard.file: number for number, shard in enumerate(study.shards)}
        self._jobs: deque[Future[None]] = deque()
        self._has_failed = False

    def fill(self, shards: Sequence[ShardPlan], tokens: Sequence[int] | None, portion: Portion | None = None) -> None:
        """Write those of the shards that are not there yet.

        Args:
            shards: The shards.
            tokens: The refusal tokens; None where they are yet to be learnt, and the shards wait for their scores,
                or where there will be none.
            portion: Which of the waves to do, but for those that other processes work on; None does all, and waits
                for what others work on.

        Raises:
            InputError: An activation is not finite, or the disk refuses to write.
        """
        todo = list(waves(shards))
        if portion is not None:
            todo = portion.of(todo)
        claimed = self._claimed(todo, waits=portion is None)
        total = sum(len(shard.prompts) for wave in todo for shard in wave)
        try:
            with ThreadPoolExecutor(max_workers=1) as writer:
                for _ in track(self._steps(claimed, tokens, writer), "activations", total):
                    pass
                self._wait()
        except OSError as error:
            raise InputError(f"cannot write in {self._folder}: {error.strerror or error}") from error

    def _steps(
        self, claimed: Iterable[Claim], tokens: Sequence[int] | None, writer: ThreadPoolExecutor
    ) -> Iterator[int]:
        """Do the work, a prompt a step."""
        for wave, lock in claimed:
            buffers = {shard.file: self._buffer(shard, MEMORY_BYTES // len(wave)) for shard in wave}
            members = [i for shard in wave for i in shard.prompts if i not in self._study.failed]
            for i in (i for shard in wave for i in shard.prompts if i in self._study.failed):
                self._fail(buffers, i, self._study.failed[i])
            lengths = [len(self._study.encoded[i].ids) for i in members]
            for batch in batches(lengths, self._budget):
                for done, result in self._run([members[j] for j in batch], buffers):
                    parts = BatchParts(self._study, done, result, tokens, self._special_ids)
                    self._submit(writer, self._add, buffers, parts)
                yield from batch
            waits = tokens is None and self._study.recipe.learns_tokens
            self._submit(writer, self._publish, wave, buffers, lock, waits)

    def _claimed(self, todo: Sequence[Sequence[ShardPlan]], *, waits: bool) -> Iterator[Claim]:
        """Lock and yield the waves that are not there yet; those that another process works on come last, or never."""
        for timeout in (0, -1) if waits else (0,):
            self._wait()  # what this process has locked itself must be done before it waits for others
            for wave in todo:
                if self._is_done(wave):
                    continue
                lock = FileLock(self._folder / f".{wave[0].file}.lock", thread_local=False)
                try:
                    lock.acquire(timeout=timeout)
                except Timeout:
                    continue
                if self._is_done(wave):
                    lock.release()
                    continue
                for shard in wave:  # what a killed process was writing
                    for left in self._folder.glob(f".{shard.file}*.tmp"):
                        left.unlink()
                yield wave, lock

    def _is_done(self, wave: Sequence[ShardPlan]) -> bool:
        return all(labels.is_published(self._folder / shard.file) for shard in wave)

    def _buffer(self, shard: ShardPlan, memory_bytes: int) -> ShardBuffer:
        recipe = self._study.recipe
        return ShardBuffer(
            self._folder,
            shard.prompts,
            recipe.sites,
            d_model=self._chat.d_model,
            dtype=recipe.dtype,
            kinds=TOKEN_KINDS,
            seed=(recipe.seed, 5, self._number[shard.file]),
            memory_bytes=memory_bytes,
        )

    def _run(self, prompts: list[int], buffers: dict[str, ShardBuffer]) -> Iterator[tuple[list[int], BatchResult]]:
        """Run a batch, in halves where it fails; yield what ran, and record what cannot."""
        prompts = sorted(prompts, key=lambda i: self._number[self._file_of[i]])  # a shard's prompts together
        longest = max(len(self._study.encoded[i].ids) for i in prompts)
        result, why, out_of_memory = None, "its batch is over the budget", False
        if len(prompts) == 1 or longest * len(prompts) <= self._budget:
            try:
                result = self._study.run(self._chat, prompts)
            except (RuntimeError, ValueError, IndexError, MemoryError) as error:
                why = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
                out_of_memory = _is_memory(error)
        if out_of_memory:  # here the error, and with it what it held, is gone
            self._budget = max(1, min(self._budget, longest * len(prompts)) // 2)
            _free_memory()
        if result is not None:
            yield prompts, result
        elif len(prompts) == 1:
            self._fail(buffers, prompts[0], why)
        else:
            half = len(prompts) // 2
            yield from self._run(prompts[:half], buffers)
            yield from self._run(prompts[half:], buffers)

    def _fail(self, buffers: dict[str, ShardBuffer], prompt: int, why: str) -> None:
        buffers[self._file_of[prompt]].fail(prompt, self._study.prompts[prompt].id, why)

    def _submit(self, writer: ThreadPoolExecutor, job: Callable[..., None], *args: Any) -> None:
        """Queue a job for the writing thread; an error in an earlier one is raised here."""
        while len(self._jobs) >= QUEUE:
            self._jobs.popleft().result()
        self._jobs.append(writer.submit(self._write, job, *args))

    def _write(self, job: Callable[..., None], *args: Any) -> None:
        """Do a job, unless one before it failed: a shard that lacks rows must not be published."""
        if not self._has_failed:
            self._has_failed = True
            job(*args)
            self._has_failed = False

    def _wait(self) -> None:
        """Wait until all that is queued is written."""
        while self._jobs:
            self._jobs.popleft().result()

    def _add(self, buffers: dict[str, ShardBuffer], parts: BatchParts) -> None:
        for file, part in parts.by_shard(self._file_of):
            buffers[file].add(part)

    def _publish(self, wave: Sequence[ShardPlan], buffers: dict[str, ShardBuffer], lock: FileLock, waits: bool) -> None:
        """Write a wave's shards, but for those that are there already, and let go of it."""
        try:
            for shard in wave:
                path = self._folder / shard.file
                if labels.is_published(path):
                    continue
                if waits:
                    here, logits = labels.unscored_path(path), labels.logits_path(path)
                else:
                    here, logits = path, None
                buffers.pop(shard.file).write(here, compression=self._compression, logits_path=logits)
        finally:
            lock.release()


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, on the device or (where torch raises a plain error) beside it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
