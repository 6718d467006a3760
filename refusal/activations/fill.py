"""Fill shards: run their prompts batch by batch while a thread writes what came before.

Waves of shards are claimed by file locks, so that several processes can work on one folder. Within a wave, prompts
of all its shards are batched together by length. A batch for which memory runs out is halved, and so are later
ones; one that fails otherwise is halved until the prompts that cannot be run stand alone.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from refusal import InputError
from refusal.activations import labels
from refusal.activations.buffer import Part, ShardBuffer
from refusal.activations.forward import BatchResult, run_batch
from refusal.activations.plan import ShardPlan, batches, waves
from refusal.activations.study import Study
from refusal.models.chat import TOKEN_KINDS, ChatModel
from refusal.models.refusal_score import refusal_score, refused
from refusal.progress import track

QUEUE = 4  # batches that may wait for the writing thread


class Filler:
    """Runs prompts and writes shards.

    Args:
        chat: The model.
        study: The prompts and their shards.
        folder: Where the shards go.
        token_budget: Padded tokens of a batch.
    """

    def __init__(self, chat: ChatModel, study: Study, folder: Path, token_budget: int) -> None:
        self._chat, self._study, self._folder, self._budget = chat, study, folder, token_budget
        self._options = study.options
        self._shard_of = {i: shard for shard in study.shards for i in shard.prompts}
        self._number = {shard.file: number for number, shard in enumerate(study.shards)}
        self._jobs: deque[Future[None]] = deque()

    def fill(self, shards: Sequence[ShardPlan], tokens: Sequence[int] | None) -> None:
        """Write those of the shards that are not there yet; without refusal tokens, they wait for their scores.

        Raises:
            InputError: An activation is not finite, or the disk refuses to write.
        """
        todo = list(waves(shards))
        total = sum(len(shard.prompts) for shard in shards)
        with ThreadPoolExecutor(max_workers=1) as writer:
            for _ in track(self._steps(todo, tokens, writer), "activations", total):
                pass
            self._wait()

    def _steps(
        self, todo: Sequence[Sequence[ShardPlan]], tokens: Sequence[int] | None, writer: ThreadPoolExecutor
    ) -> Iterator[int]:
        """Do the work, a prompt a step."""
        for wave, lock in self._claimed(todo):
            buffers = {shard.file: self._buffer(shard) for shard in wave}
            members = [i for shard in wave for i in shard.prompts if i not in self._study.failed]
            for i in (i for shard in wave for i in shard.prompts if i in self._study.failed):
                self._fail(buffers, i, self._study.failed[i])
            lengths = [len(self._study.encoded[i].ids) for i in members]
            for batch in batches(lengths, self._budget):
                for done, result in self._run([members[j] for j in batch], buffers):
                    parts = list(self._parts(done, result, tokens))
                    self._submit(writer, self._add, buffers, parts)
                yield from batch
            self._submit(writer, self._publish, wave, buffers, lock, tokens is not None)

    def _claimed(self, todo: Sequence[Sequence[ShardPlan]]) -> Iterator[tuple[Sequence[ShardPlan], FileLock]]:
        """Lock and yield the waves that are not there yet; those that another process works on come last."""
        for timeout in (0, -1):
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

    def _buffer(self, shard: ShardPlan) -> ShardBuffer:
        return ShardBuffer(
            self._folder,
            shard.prompts,
            self._options.sites,
            d_model=self._chat.d_model,
            dtype=self._options.dtype,
            kinds=TOKEN_KINDS,
            seed=(self._options.seed, 5, self._number[shard.file]),
        )

    def _run(self, prompts: list[int], buffers: dict[str, ShardBuffer]) -> Iterator[tuple[list[int], BatchResult]]:
        """Run a batch, in halves where it fails; yield what ran, and record what cannot."""
        prompts = sorted(prompts, key=lambda i: self._number[self._shard_of[i].file])  # a shard's prompts together
        longest = max(len(self._study.encoded[i].ids) for i in prompts)
        result, why, out_of_memory = None, "its batch is over the budget", False
        if len(prompts) == 1 or longest * len(prompts) <= self._budget:
            try:
                result = self._forward(prompts)
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

    def _forward(self, prompts: Sequence[int]) -> BatchResult:
        study, options = self._study, self._options
        return run_batch(
            self._chat,
            [study.encoded[i] for i in prompts],
            [study.positions[i] for i in prompts],
            options.sites,
            ids=[study.prompts[i].id for i in prompts],
            response_tokens=options.response_tokens,
            writes=options.writes,
            dtype=options.dtype,
        )

    def _parts(
        self, prompts: Sequence[int], result: BatchResult, tokens: Sequence[int] | None
    ) -> Iterator[tuple[str, Part]]:
        """Share a batch's result out among its shards; the prompts of one shard stand together in it."""
        study = self._study
        scores = [float("nan")] * len(prompts) if tokens is None else refusal_score(result.logits, tokens).tolist()
        logits = result.logits.cpu().numpy() if tokens is None else None
        n_rows = np.cumsum([0, *(len(study.positions[i]) for i in prompts)])
        files = [self._shard_of[i].file for i in prompts]
        for file in dict.fromkeys(files):
            start = files.index(file)
            here = slice(start, start + files.count(file))
            members, rows = prompts[here], slice(n_rows[here.start], n_rows[here.stop])
            given = [study.prompts[i] for i in members]
            columns: dict[str, list[Any]] = {
                name: [getattr(prompt, name) for prompt in given]
                for name in ("id", "text", "category", "split", "fold")
            }
            columns["index"] = list(members)
            columns["response"] = result.responses[here]
            columns["n_tokens"] = [len(study.encoded[i].ids) for i in members]
            columns["first_token"] = result.first_tokens[here]
            columns["refused"] = [refused(response, self._options.phrases) for response in result.responses[here]]
            columns["refusal_score"] = scores[here]
            yield (
                file,
                Part(
                    columns,
                    self._row_columns(members),
                    {site: values[rows] for site, values in result.rows.items()},
                    None if result.writes is None else result.writes[here],
                    None if logits is None else logits[here],
                ),
            )

    def _row_columns(self, prompts: Sequence[int]) -> dict[str, np.ndarray]:
        positions = [self._study.positions[i] for i in prompts]
        encoded = [self._study.encoded[i] for i in prompts]
        return {
            "prompt": np.repeat(prompts, [len(rows) for rows in positions]),
            "position": np.concatenate(positions),
            "token_id": np.concatenate([np.asarray(e.ids)[rows] for e, rows in zip(encoded, positions, strict=True)]),
            "kind": np.concatenate([e.kinds[rows] for e, rows in zip(encoded, positions, strict=True)]),
        }

    def _fail(self, buffers: dict[str, ShardBuffer], prompt: int, why: str) -> None:
        buffers[self._shard_of[prompt].file].fail(prompt, self._study.prompts[prompt].id, why)

    def _submit(self, writer: ThreadPoolExecutor, job: Callable[..., None], *args: Any) -> None:
        """Queue a job for the writing thread; an error in an earlier one is raised here."""
        while len(self._jobs) >= QUEUE:
            self._jobs.popleft().result()
        self._jobs.append(writer.submit(job, *args))

    def _wait(self) -> None:
        """Wait until all that is queued is written."""
        while self._jobs:
            self._jobs.popleft().result()

    def _add(self, buffers: dict[str, ShardBuffer], parts: Sequence[tuple[str, Part]]) -> None:
        try:
            for file, part in parts:
                buffers[file].add(part)
        except OSError as error:
            raise InputError(f"cannot write in {self._folder}: {error.strerror or error}") from error

    def _publish(
        self, wave: Sequence[ShardPlan], buffers: dict[str, ShardBuffer], lock: FileLock, are_scored: bool
    ) -> None:
        """Write a wave's shards, but for those that are there already, and let go of it."""
        try:
            for shard in wave:
                path = self._folder / shard.file
                if labels.is_published(path):
                    continue
                if are_scored:
                    buffers[shard.file].write(path)
                else:
                    buffers[shard.file].write(labels.unscored_path(path), labels.logits_path(path))
        finally:
            lock.release()


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, on the device or (where torch raises a plain error) beside it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
