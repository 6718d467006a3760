"""The whole study of one model, from collection over trained autoencoders to the comparison, by every method.

What ``discover.py`` does, without the folders between the stages: the ``circuit`` reading (nodes of trained features
in the place of differences of means) has a truth, too, and an attribution method shows in how near it comes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from refusal.activations.collect import collect
from refusal.activations.recipe import Recipe as Collection
from refusal.activations.samplers.uniform import weights
from refusal.activations.store import ActivationStore
from refusal.artifacts import read_json
from refusal.calibration.family import Member
from refusal.calibration.nodes import METHODS
from refusal.comparison.discover import discover
from refusal.comparison.material import Settings
from refusal.models.chat import load_chat_model
from refusal.models.planted import write_planted
from refusal.models.sites import Site
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.select import with_folds
from refusal.sae.files import load_sae
from refusal.sae.recipe import Recipe
from refusal.sae.sizes import learning_rate
from refusal.sae.training.train import Job, train_saes

MAX_PROMPTS = 20  # refused ones a category, outside calibration
D_SAE, STEPS = 512, 400
RECIPE = Recipe(
    target="refusal.sae.architectures.topk.TopK",
    hidden_dim=D_SAE,
    lr=learning_rate(D_SAE, None),
    batch_size=256,
    epochs=10_000,
    max_rows=256 * STEPS,
    seed=0,
    lr_warmup=0.05,
    lr_decay=0.2,
    dead_after_rows=20_000,
    options={"k": 8},
)
SETTINGS = Settings(
    method="atp",
    node_threshold=0.1,
    edge_threshold=0.01,
    top_n_per_layer=50,
    separate_safe_toxic=False,
    positions="last",
    baseline="mean",
    min_per_category=8,
    permutations=199,
    bootstrap=500,
    seed=0,
)


def measure(member: Member) -> dict[str, Any]:
    """Return index, ``circuit`` reading, verdict, tests and faithfulness by method, beside the truth."""
    started = time.monotonic()
    n = 3 * min(member.n, MAX_PROMPTS) // 2  # a third of them is for calibration of the score
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        vocabulary = make_vocabulary(member.words, member.categories)
        write_planted(Path(folder) / "model", vocabulary, member.plan, member.template)
        chat = load_chat_model(folder + "/model", name="planted")
        prompts = planted_prompts(vocabulary, n_safe=n // 2, n_hard=n - n // 2, n_toxic=n, seed=member.words)
        sites = tuple(Site("mlp", layer) for layer in member.plan.deciding)
        store = Path(folder) / "store"
        collect(chat, with_folds(prompts, member.words), Collection(sites), store, card={})
        saes = _train(ActivationStore(store), sites, Path(folder))
        found = {}
        for method, attribute in METHODS.items():
            home = Path(folder) / method
            discover(
                chat,
                ActivationStore(store),
                saes,
                home,
                model="planted",
                data="planted",
                fingerprint="",
                settings=replace(SETTINGS, method=method, seed=member.number),
                attribute=attribute,
            )
            verdict, comparison = read_json(home / "verdict.json"), read_json(home / "planted_comparison.json")
            found[method] = _told(verdict, comparison)
    return {"truth": member.truth, "studies": found, "seconds": round(time.monotonic() - started, 2)}


def _train(store: ActivationStore, sites: tuple[Site, ...], folder: Path) -> dict[Site, Any]:
    jobs = [Job(site, 0, folder / "saes" / str(site), str(site)) for site in sites]
    for job in jobs:
        job.folder.mkdir(parents=True)
    train_saes(
        store,
        jobs,
        RECIPE,
        model="planted",
        sampler=weights,
        order_seed=0,
        last_fraction=1.0,
        kinds=(),
        trainer={"accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
        checkpoints=folder / "checkpoints",
    )
    return {site: load_sae(job.folder, model="planted", site=site) for site, job in zip(sites, jobs, strict=True)}


def _told(verdict: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    faithful = [one["faithfulness"] for one in comparison["evaluation"] if one["faithfulness"] is not None]
    return {
        "verdict": verdict["verdict"],
        "readings": verdict["readings"],
        "p": verdict["p"],
        "faithfulness": float(np.mean(faithful)) if faithful else None,
    }
