"""Small stores whose rows say what they are, and a tiny random Llama with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from refusal.activations.shard import write_shard
from refusal.activations.store import MANIFEST, SCHEMA_VERSION, ActivationStore
from refusal.artifacts import write_json
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.planted import write_planted
from refusal.models.planted_plan import Plan
from refusal.models.tokens import TOKEN_KINDS
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import FOLDS, Prompt

Layout = Sequence[tuple[str, str, str, int, int]]  # category, split, fold, prompts, rows a prompt

torch.set_num_threads(1)  # matrices this small gain nothing from a second, and other tests need it

SITE = "mlp_0"
D_MODEL = 4


def write_store(
    folder: Path, layout: Layout, *, dtype: str = "float32", kinds: Sequence[str] = ("instruction",)
) -> ActivationStore:
    """Write a store of one site; a row is (number of the row, number of its prompt, 1 if it is the last, stratum).

    The positions of a prompt but for its last are of these sections in turn, which are in their order.
    """
    shards, n_rows, n_prompts = [], 0, 0
    for number, (category, split, fold, count, per_prompt) in enumerate(layout):
        others = np.random.default_rng(number).permutation(count * (per_prompt - 1))
        section = others % (per_prompt - 1) % len(kinds)
        others = others[np.argsort(section, kind="stable")]
        sections = {"last": count} | {kind: int((section == i).sum()) for i, kind in enumerate(kinds)}
        prompt = np.concatenate([np.arange(count), others // (per_prompt - 1)])
        position = np.concatenate([np.full(count, per_prompt - 1), others % (per_prompt - 1)])
        rows = np.stack(
            [
                n_rows + np.arange(len(prompt)),
                n_prompts + prompt,
                position == per_prompt - 1,
                np.full(len(prompt), number),
            ],
            1,
        ).astype(np.float32)
        values = torch.from_numpy(rows)
        stored = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else rows
        name = f"shard-{number:04d}.h5"
        write_shard(
            folder / name,
            prompts={
                "id": [f"{n_prompts + i:016x}" for i in range(count)],
                "text": [f"text {n_prompts + i}" for i in range(count)],
                "category": [category] * count,
                "split": [split] * count,
                "fold": [fold] * count,
                "response": ["no" if split == "toxic" else "yes"] * count,
                # the study's order is the reverse of the shards'
                "index": [1_000_000 - n_prompts - i for i in range(count)],
                "n_tokens": [per_prompt] * count,
                "first_token": [7] * count,
                "source": [f"{n_prompts + i:016x}" for i in range(count)],
                "variant": [""] * count,
                "refused": [split == "toxic"] * count,
                "by_phrases": [split == "toxic"] * count,
                "by_score": [split == "toxic"] * count,
                "refusal_score": [float(n_prompts + i) for i in range(count)],
                "truncated": [0] * count,
            },
            rows={
                "prompt": prompt,
                "position": position,
                "token_id": np.full(len(prompt), 9),
                "kind": np.full(len(prompt), TOKEN_KINDS.index("instruction")),
                "is_special": np.zeros(len(prompt), dtype=bool),
            },
            sections=sections,
            activations=[(SITE, stored)],
            writes=None,
            failed={},
            kinds=TOKEN_KINDS,
            dtype=dtype,
        )
        shards.append(
            {
                "file": name,
                "category": category,
                "split": split,
                "fold": fold,
                "n_prompts": count,
                "n_rows": len(prompt),
                "sections": sections,
            }
        )
        n_rows, n_prompts = n_rows + len(prompt), n_prompts + count
    write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            "sites": [SITE],
            "dtype": dtype,
            "d_model": D_MODEL,
            "n_layers": 1,
            "writes": False,
            "refusal_tokens": [1],
            "max_prompt_tokens": None,
            "labels": "phrases",
            "positions": ["last", "prompt"] if "prefix" in kinds else ["last", "instruction", "template"],
            "response_positions": int("response" in kinds),
            "shards": shards,
        },
    )
    return ActivationStore(folder)


MIXED: Layout = (
    ("hate", "safe", "calibration", 5, 4),
    ("hate", "toxic", "calibration", 3, 4),
    ("hate", "safe", "train", 40, 6),
    ("hate", "toxic", "train", 7, 5),
    ("privacy", "hard", "train", 9, 3),
    ("privacy", "toxic", "train", 30, 4),
    ("privacy", "toxic", "heldout", 11, 4),
)


@pytest.fixture
def mixed(tmp_path: Path) -> ActivationStore:
    """A store with every split, two categories and three folds."""
    return write_store(tmp_path, MIXED)


WORDS = tuple("abcdefghijklmnopqrstuvwxyz")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<bos> <user> ' + message['content'] + ' <end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)


def tiny_chat(seed: int = 0) -> ChatModel:
    """A Llama of two blocks with random weights, grouped queries and ordinary rotary positions."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(("<bos>", "<eos>", "<unk>", "<user>", "<end>", "<assistant>", *WORDS))}
    words = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
    )
    return ChatModel(LlamaForCausalLM(config).eval().requires_grad_(False), tokenizer, "tiny")


@pytest.fixture(scope="session")
def tiny() -> ChatModel:
    """The tiny model; tests must not change it."""
    return tiny_chat()


def planted_study(folder: Path, n_each: int = 12) -> tuple[ChatModel, list[Prompt]]:
    """A planted model of two categories, written to the folder, and prompts with their folds."""
    vocabulary = make_vocabulary(categories=("hate", "privacy"))
    if not folder.exists():
        write_planted(folder, vocabulary, Plan(n_layers=4))
    prompts = planted_prompts(vocabulary, n_safe=n_each, n_hard=n_each, n_toxic=n_each)
    folded = [replace(prompt, fold=FOLDS[i % 3]) for i, prompt in enumerate(prompts)]
    return load_chat_model(folder, name="planted"), folded


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatModel, list[Prompt]]:
    """The planted model with 72 prompts; tests must not change them."""
    return planted_study(tmp_path_factory.mktemp("models") / "planted")
