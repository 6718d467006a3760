"""Time attribution: all sites against a forward pass, ten categories against one, ``stats`` against scipy.

1. ``atp`` at every site of the model, for every category, against one forward pass over the same prompts, whole, at
   the same batch size. Target: 3.5 times at most.
2. The same with the prompts in ten categories and all in one, with the choice of each category's nodes. Target: 10 %.
3. ``stats`` at one site against a loop of scipy.stats.pearsonr over categories and features of the same codes.
   Target: 100 times as fast, equal values.

Contestants take turns; the median of their ratios is the claim, in CPU seconds, as other jobs disturb them less.
Autoencoders are of the usual size (8 times the width), with random weights: one for all sites, as their cost does not
depend on what they learned.

    python benchmarks/circuits.py [MODEL] [--prompts N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

THREADS = len(os.sched_getaffinity(0))
os.environ.update({"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(THREADS)})  # read when torch is imported
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.stats import pearsonr  # noqa: E402

from benchmarks.ours import recipe_of  # noqa: E402
from refusal.circuits.attribution import atp, stats  # noqa: E402
from refusal.circuits.experiment import Experiment  # noqa: E402
from refusal.circuits.importances import mean_by_site  # noqa: E402
from refusal.circuits.select import choose_nodes  # noqa: E402
from refusal.models.chat import ChatModel, load_chat_model  # noqa: E402
from refusal.models.sites import KINDS, Site  # noqa: E402
from refusal.prompts.mini import read_mini  # noqa: E402
from refusal.prompts.prompt import Prompt  # noqa: E402
from refusal.prompts.select import cap  # noqa: E402
from refusal.sae.build import build  # noqa: E402

EXPANSION, K, BATCH = 8, 32, 64
TOKENS = [0]  # any token will do as a refusal token: its log-odds have a gradient
EQUAL = 1e-4


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=Path("/tmp/w/smollm"), help="folder of a chat model")
    parser.add_argument("--prompts", type=int, default=100, help="how many prompts (100)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each contestant takes (5)")
    parser.add_argument("--json", type=Path, default=Path("circuits.json"), help="where to write (circuits.json)")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    chat = load_chat_model(options.model, name="benchmark")
    prompts = choose_prompts(options.prompts)
    ten = experiment_of(chat, prompts, [Site(kind, layer) for layer in range(chat.n_layers) for kind in KINDS])
    one = replace(ten, categories=["all"] * len(prompts))
    read = experiment_of(chat, prompts, [Site("mlp", chat.n_layers // 2)])
    _ = read.readings, read.reference  # what both start from
    codes = read.split(read.sites[0], np.arange(len(prompts))).f[:, 0].numpy()
    rounds = take_turns(
        {
            "forward": lambda: forward(ten),
            "atp, ten categories": lambda: attribute(ten),
            "atp, one category": lambda: attribute(one),
            "stats": lambda: correlations(read),
        },
        options.rounds,
    )
    begun = time.process_time()
    expected = peer(read, codes)
    rounds[0]["scipy.stats.pearsonr"] = time.process_time() - begun
    medians = {name: statistics.median(turn[name] for turn in rounds if name in turn) for name in rounds[0]}
    result = {
        "cpu_seconds": medians,
        "atp_against_forward": ratio(rounds, "atp, ten categories", "forward"),
        "ten_categories_against_one": ratio(rounds, "atp, ten categories", "atp, one category"),
        "pearsonr_against_stats": medians["scipy.stats.pearsonr"] / medians["stats"],
        "largest_difference_of_a_correlation": float(np.nanmax(np.abs(correlations(read) - expected))),
        "shape": {"prompts": len(prompts), "sites": len(ten.sites), "d_model": chat.d_model, "d_sae": codes.shape[1]},
        "versions": {"python": platform.python_version(), **{n: metadata.version(n) for n in ("torch", "scipy")}},
        "threads": THREADS,
        "load": os.getloadavg()[0],
        "rounds": rounds,
    }
    assert result["largest_difference_of_a_correlation"] < EQUAL
    for name, seconds in medians.items():
        print(f"{name:24s} {seconds:8.3f} CPU s")
    for name in ("atp_against_forward", "ten_categories_against_one", "pearsonr_against_stats"):
        print(f"{name.replace('_', ' '):32s} {result[name]:8.2f}")
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def choose_prompts(n_prompts: int) -> list[Prompt]:
    """Return OR-Bench prompts, as many safe as toxic ones of each category."""
    prompts = [prompt for prompt in read_mini() if prompt.split != "hard"]
    n_strata = len({(prompt.category, prompt.split) for prompt in prompts})
    return cap(prompts, n_prompts // n_strata, 0)


def experiment_of(chat: ChatModel, prompts: Sequence[Prompt], sites: Sequence[Site]) -> Experiment:
    """Return the prompts, the toxic ones for refused, with an autoencoder of random weights for all sites."""
    recipe = recipe_of("topk", d_model=chat.d_model, d_sae=EXPANSION * chat.d_model, k=K, batch=BATCH, seed=0)
    sae = build(recipe, chat.d_model).eval().requires_grad_(False)
    return Experiment(
        chat=chat,
        encoded=[chat.encode(prompt.text) for prompt in prompts],
        categories=[prompt.category for prompt in prompts],
        refused=np.array([prompt.split == "toxic" for prompt in prompts]),
        saes=dict.fromkeys(sites, sae),
        refusal_tokens=TOKENS,
        batch_size=BATCH,
    )


def forward(experiment: Experiment) -> None:
    """Run the prompts once, whole."""
    chat, size = experiment.chat, experiment.batch_size
    by_length = sorted(experiment.encoded, key=lambda prompt: len(prompt.ids))
    with torch.no_grad():
        for start in range(0, len(by_length), size):
            inputs = chat.pad(by_length[start : start + size], "left").inputs()
            chat.model(**inputs, use_cache=False, logits_to_keep=1)


def attribute(experiment: Experiment) -> None:
    """Attribute from the beginning, and choose each category's nodes."""
    fresh = replace(experiment)
    importances = atp.attribute(fresh)
    for category in set(fresh.categories):
        means = mean_by_site(importances, fresh.rows(category, refused=True))
        choose_nodes(means, threshold=0.1)


def correlations(experiment: Experiment) -> np.ndarray:
    """Return the correlation of each feature with refusing, by ``stats``, [n_categories, d_sae]."""
    (of_site,) = stats.attribute(experiment).values()
    categories = sorted(set(experiment.categories))
    return np.stack([of_site.mean(experiment.rows(category, refused=True))[:-1] for category in categories])


def peer(experiment: Experiment, codes: np.ndarray) -> np.ndarray:
    """Return the same by a loop over scipy's correlation of codes [n_prompts, d_sae]; NaN of a constant feature."""
    names = np.asarray(experiment.categories)
    found = np.empty((len(set(names)), codes.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant features
        for row, category in enumerate(sorted(set(experiment.categories))):
            own = names == category
            refused = experiment.refused[own].astype(float)
            for feature in range(codes.shape[1]):
                result = pearsonr(codes[own, feature], refused)
                found[row, feature] = result.statistic  # pyright: ignore[reportAttributeAccessIssue]  not in its stubs
    return found


def take_turns(contestants: dict[str, Callable[[], Any]], n_rounds: int) -> list[dict[str, float]]:
    """Return the CPU seconds of each contestant in each round, after one that is not timed."""
    rounds = []
    for _ in range(1 + n_rounds):
        turn = {}
        for name, run in contestants.items():
            begun = time.process_time()
            run()
            turn[name] = time.process_time() - begun
        rounds.append(turn)
    return rounds[1:]


def ratio(rounds: Sequence[dict[str, float]], one: str, other: str) -> float:
    """Return the median over rounds of how long one took against another."""
    return statistics.median(turn[one] / turn[other] for turn in rounds)


if __name__ == "__main__":
    sys.exit(main())
