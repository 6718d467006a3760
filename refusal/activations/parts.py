"""From a batch's result to the table rows and activations of each shard that has prompts in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from refusal.activations.buffer import Part
from refusal.activations.forward import BatchResult
from refusal.activations.labels import judged
from refusal.activations.shard import SECTIONS
from refusal.activations.study import Study, last_instruction
from refusal.models.refusal_score import refusal_score, refused
from refusal.models.sites import Site
from refusal.models.tokens import RESPONSE, TOKEN_KINDS

_SECTION_OF_KIND = np.array([SECTIONS.index(kind) for kind in TOKEN_KINDS])
_LAST, _LAST_INSTRUCTION = SECTIONS.index("last"), SECTIONS.index("last_instruction")


class BatchParts:
    """Shares one batch's result out among shards.

    Args:
        study: The prompts.
        prompts: Places in the study of the batch's prompts, those of one shard together.
        result: What the batch gave.
        tokens: Refusal tokens; None if they are not known yet, or never will be.
        special_ids: Special tokens of the tokenizer.
    """

    def __init__(
        self,
        study: Study,
        prompts: Sequence[int],
        result: BatchResult,
        tokens: Sequence[int] | None,
        special_ids: Sequence[int],
    ) -> None:
        self._study, self._prompts, self._result = study, prompts, result
        self._special_ids = special_ids
        waits = tokens is None and study.recipe.learns_tokens
        self._logits = result.logits.cpu().numpy() if waits and result.logits is not None else None
        self._scores = np.full(len(prompts), np.nan, dtype=np.float32)
        if tokens is not None and result.logits is not None:
            self._scores = refusal_score(result.logits, tokens).cpu().numpy()

    def by_shard(self, file_of: Mapping[int, str]) -> Iterator[tuple[str, Part]]:
        """Yield each shard's file with its part."""
        n_rows = np.cumsum([0, *(len(self._study.positions[i]) for i in self._prompts)])
        files = [file_of[i] for i in self._prompts]
        for file in dict.fromkeys(files):
            start = files.index(file)
            here = slice(start, start + files.count(file))
            yield file, self._part(here, slice(n_rows[here.start], n_rows[here.stop]))

    def _part(self, here: slice, rows: slice) -> Part:
        result, responses = self._result, self._result.responses
        said = slice(*np.searchsorted(responses.prompt, [here.start, here.stop]))
        columns, sections = self._row_columns(self._prompts[here], said)
        activations: dict[Site, list[np.ndarray]] = {site: [values[rows]] for site, values in result.rows.items()}
        for site, values in result.response_rows.items():
            activations[site].append(values[said])
        return Part(
            self._prompt_columns(here),
            columns,
            sections,
            activations,
            None if result.writes is None else result.writes[here],
            None if self._logits is None else self._logits[here],
        )

    def _prompt_columns(self, here: slice) -> dict[str, list[Any]]:
        study, responses, members = self._study, self._result.responses, self._prompts[here]
        given = [study.prompts[i] for i in members]
        columns: dict[str, list[Any]] = {
            name: [getattr(prompt, name) for prompt in given]
            for name in ("id", "text", "category", "split", "fold", "variant")
        }
        columns["source"] = [prompt.source or prompt.id for prompt in given]
        columns["index"] = list(members)
        columns["response"] = responses.texts[here]
        columns["n_tokens"] = [len(study.encoded[i].ids) for i in members]
        columns["truncated"] = [study.encoded[i].truncated for i in members]
        columns["first_token"] = responses.first_tokens[here]
        columns["refusal_score"] = self._scores[here].tolist()
        by_phrases = np.array([refused(text, study.recipe.phrases) for text in responses.texts[here]], dtype=bool)
        by_score = self._scores[here] > 0
        columns["by_phrases"], columns["by_score"] = by_phrases.tolist(), by_score.tolist()
        columns["refused"] = judged(by_phrases, by_score, study.recipe.refused_by).tolist()
        return columns

    def _row_columns(self, members: Sequence[int], said: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the columns and sections of the prompts' rows, and after them of their responses'."""
        study, responses = self._study, self._result.responses
        positions = [study.positions[i] for i in members]
        encoded = [study.encoded[i] for i in members]
        kinds = np.concatenate([e.kinds[at] for e, at in zip(encoded, positions, strict=True)])
        sections = np.concatenate([self._sections(i) for i in members])
        spoken = np.array([self._prompts[place] for place in responses.prompt[said]], dtype=np.int64)
        lengths = np.array([len(study.encoded[i].ids) for i in spoken], dtype=np.int64)
        special = [e.is_special[at] for e, at in zip(encoded, positions, strict=True)]
        columns = {
            "prompt": [np.repeat(members, [len(at) for at in positions]), spoken],
            "position": [*positions, lengths + responses.step[said]],
            "token_id": [
                *(np.asarray(e.ids)[at] for e, at in zip(encoded, positions, strict=True)),
                responses.token_id[said],
            ],
            "kind": [kinds, np.full(len(spoken), RESPONSE)],
            "is_special": [*special, np.isin(responses.token_id[said], self._special_ids)],
        }
        sections = np.append(sections, np.full(len(spoken), _SECTION_OF_KIND[RESPONSE]))
        return {name: np.concatenate(parts) for name, parts in columns.items()}, sections

    def _sections(self, i: int) -> np.ndarray:
        """The section of each row of a prompt."""
        prompt, positions = self._study.encoded[i], self._study.positions[i]
        sections = _SECTION_OF_KIND[prompt.kinds[positions]]
        if "last_instruction" in self._study.recipe.positions:
            sections[positions == last_instruction(prompt)] = _LAST_INSTRUCTION
        sections[positions == len(prompt.ids) - 1] = _LAST
        return sections
