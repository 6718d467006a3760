"""A small store whose rows are sparse sums of known directions, and a recipe that learns them in a second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refusal.activations.shard import ROW_COLUMNS, write_shard
from refusal.activations.store import MANIFEST, SCHEMA_VERSION, ActivationStore
from refusal.artifacts import write_json
from refusal.models.tokens import TOKEN_KINDS
from refusal.prompts.prompt import FOLDS
from refusal.sae.recipe import Recipe

torch.set_num_threads(1)  # matrices this small gain nothing from a second, and other tests need it

SITE, OTHER_SITE = "mlp_1", "residuals_1"
D_MODEL, N_DIRECTIONS = 16, 24
PROMPTS, ROWS_PER_PROMPT = 30, 8

RECIPE = Recipe(
    target="refusal.sae.architectures.topk.TopK",
    hidden_dim=64,
    lr=5e-3,
    batch_size=64,
    epochs=10,
    max_rows=1_000_000,
    seed=0,
    lr_warmup=0.05,
    lr_decay=0.2,
    dead_after_rows=1000,
    options={"k": 3, "aux_k": 8, "aux_coefficient": 1 / 32},
)


def sparse_rows(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return rows [n, D_MODEL] with two directions each, far from the origin, in large units."""
    directions = np.random.default_rng(0).standard_normal((N_DIRECTIONS, D_MODEL))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chosen = rng.integers(N_DIRECTIONS, size=(n, 2))
    sizes = rng.uniform(0.5, 1.5, (n, 2, 1))
    return (20.0 * (directions[chosen] * sizes).sum(1) + 100.0).astype(np.float32)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """A store of two sites and 2 splits x 3 folds, 30 prompts of 8 rows, and another that must not train, in each."""
    folder = tmp_path_factory.mktemp("store")
    shards, rng = [], np.random.default_rng(1)
    strata = [("hate", split, fold) for split in ("safe", "toxic") for fold in FOLDS]
    for number, (category, split, fold) in enumerate(strata):
        others = rng.permutation(PROMPTS * (ROWS_PER_PROMPT - 1))
        prompt = np.concatenate([np.arange(PROMPTS), others // (ROWS_PER_PROMPT - 1)])
        # rows as those of BOS are, which must not train: a thousand times larger
        bos = np.full((PROMPTS, D_MODEL), 1e5, np.float32)
        values = [np.concatenate([sparse_rows(len(prompt), rng), bos]) for _ in range(2)]
        prompt = np.concatenate([prompt, np.arange(PROMPTS)])
        columns = {"category": category, "split": split, "fold": fold, "response": "no", "n_tokens": ROWS_PER_PROMPT}
        columns |= {"first_token": 7, "refused": split == "toxic", "refusal_score": 1.0, "source": "", "variant": ""}
        columns |= {"by_phrases": split == "toxic", "by_score": split == "toxic", "truncated": 0}
        sections = {"last": PROMPTS, "instruction": PROMPTS * (ROWS_PER_PROMPT - 1), "special": PROMPTS}
        file = f"shard-{number}.h5"
        write_shard(
            folder / file,
            prompts={name: [value] * PROMPTS for name, value in columns.items()}
            | {"id": [f"{number}-{i}" for i in range(PROMPTS)], "text": ["text"] * PROMPTS}
            | {"index": [number * PROMPTS + i for i in range(PROMPTS)]},
            rows=dict.fromkeys(ROW_COLUMNS, prompt),
            sections=sections,
            activations=list(zip((SITE, OTHER_SITE), values, strict=True)),
            writes=None,
            failed={},
            kinds=TOKEN_KINDS,
            dtype="float32",
        )
        counts = {"n_prompts": PROMPTS, "n_rows": len(values[0]), "sections": sections}
        shards.append({"file": file, "category": category, "split": split, "fold": fold, **counts})
    manifest = {"schema_version": SCHEMA_VERSION, "sites": [SITE, OTHER_SITE], "shards": shards, "refusal_tokens": [7]}
    manifest |= {
        "dtype": "float32",
        "positions": ["last", "prompt"],
        "response_positions": 0,
        "max_prompt_tokens": None,
    }
    write_json(folder / MANIFEST, {**manifest, "d_model": D_MODEL, "n_layers": 2, "writes": False})
    return ActivationStore(folder)


@pytest.fixture
def recipe() -> Recipe:
    """The recipe, to be changed by ``dataclasses.replace``."""
    return replace(RECIPE)


@pytest.fixture
def rows() -> torch.Tensor:
    """Rows like those of the store, [512, D_MODEL]."""
    return torch.from_numpy(sparse_rows(512, np.random.default_rng(2)))
