"""What a command would do: which results are there, which would be built, and about what that takes.

Nothing is loaded: tokens are guessed from the length of the texts, and time from how fast this machine multiplies.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from refusal.activations.plan import bytes_needed
from refusal.study import Study

LETTERS_PER_TOKEN = 4  # of English prose
TEMPLATE_TOKENS = 10
EFFICIENCY = 0.3  # of a training or forward pass, against one large product of matrices
PASSES = 40  # whole passes over the prompts that discovery takes, about
STARTUP = 10  # seconds: importing, loading


def forecast(study: Study) -> str:
    """Return a line for each stage, and at last the estimates."""
    n_layers, d_model = study.shape
    command = study.options.command
    lines = [
        f"model          {study.name}: {n_layers} blocks, d_model {d_model}",
        f"prompts        {len(study.prompts)} in {len({prompt.category for prompt in study.prompts})} categories",
        f"sites          {len(study.sites)}: {', '.join(map(str, study.sites))}",
        _line("activations", study.store, study.has_store()),
    ]
    if command != "collect":
        recipe = study.recipe
        lines.append(
            f"autoencoders   {recipe['hidden_dim']} features, k {recipe['k']}, batches of {recipe['batch_size']}"
        )
        lines += [_line("sae", study.sae(site), study.has_sae(site)) for site in study.sites]
    if command == "discover" or study.options.callbacks.discovery:
        lines.append(_line("circuits", study.circuits, study.has(study.circuits)))
        lines.append(_line("report", study.study_report, study.has(study.study_report)))
    return "\n".join([*lines, _estimates(study)])


def _line(stage: str, folder: Path, is_there: bool) -> str:
    return f"{stage:<15}{'found' if is_there else 'to build':<9}{folder}"


def _estimates(study: Study) -> str:
    """Return the line of what is missing: rows, disk, memory, time."""
    options, (n_layers, d_model), n_prompts = study.options, study.shape, len(study.prompts)
    n_tokens = sum(len(prompt.text) // LETTERS_PER_TOKEN + TEMPLATE_TOKENS for prompt in study.prompts)
    n_rows = min(n_tokens, options.collect.max_rows)
    weights = 12 * n_layers * d_model**2  # of the blocks, in a transformer of the usual proportions
    disk, memory, work = 0, 4 * weights, 0.0
    if not study.has_store():
        disk += bytes_needed(
            n_rows,
            n_prompts,
            n_sites=len(study.sites),
            n_layers=n_layers,
            d_model=d_model,
            dtype=options.collect.store_dtype,
            writes=options.collect.writes,
        )
        work += 2 * weights * (n_tokens + n_prompts * options.model.response_tokens)
    if options.command != "collect":
        recipe, missing = study.recipe, [site for site in study.sites if not study.has_sae(site)]
        numbers = 2 * d_model * recipe["hidden_dim"]
        disk += 4 * numbers * len(missing)
        memory = max(memory, 16 * numbers + 4 * n_rows * d_model)  # weights, gradients, Adam's two; the site's rows
        work += len(missing) * 4 * numbers * min(recipe["epochs"] * n_rows, recipe["max_rows"])
    if options.callbacks.discovery and not study.has(study.circuits):
        work += PASSES * 2 * weights * n_tokens
    if not work:
        return "estimates      nothing is to be built"
    seconds = STARTUP + work / (EFFICIENCY * _speed())
    return (
        f"estimates      {n_rows:,} rows a site, {disk / 1e9:.2f} GB more on disk, {memory / 1e9:.2f} GB of memory, "
        f"{max(1, round(seconds / 60))} min on this CPU"
    )


def _speed() -> float:
    """Return this CPU's multiplications and additions a second, measured on one product of matrices."""
    a = np.ones((1024, 1024), dtype=np.float32)
    _ = a @ a
    start = time.perf_counter()
    _ = a @ a
    return 2 * 1024**3 / (time.perf_counter() - start)
