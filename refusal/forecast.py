"""What a command would do: which results are there, which would be built, and what that takes.

Rows and bytes of a collection are counted with the model's own tokenizer, its time and memory measured on a few batches
where the weights are at hand. Training, measuring and discovery are guessed, from sizes, steps and how fast this
machine is.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np

from refusal import InputError, groups, stages
from refusal.activations.plan import check_disk
from refusal.activations.samplers import Stratum
from refusal.artifacts import read_json
from refusal.config.schemas import TrainedSae
from refusal.sae.training.scope import Part
from refusal.study import MANIFEST, Study

LETTERS_PER_TOKEN = 4  # of English prose
TEMPLATE_TOKENS = 10
EFFICIENCY = 0.3  # of a forward pass, against one large product of matrices
STEP = 2.5  # a training step against the product of its encoder, about
STEP_SECONDS = 1e-3  # that a step takes besides, however small it is
LOADING = 8.0  # seconds before a training's first step
PROBING = 0.2  # seconds that an autoencoder's rows and probes take, about
PASSES = 40  # whole passes over the prompts that discovery takes, about
STARTUP = 2.0  # seconds before anything here runs, and of the statistics of the prompts
FIGURE_BYTES = 40_000_000  # that stay in memory after their figure


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
        lines.append(f"autoencoders   {_autoencoders(study)}")
        lines += [_line("sae", study.sae(key), study.has_sae(key)) for key in study.saes]
        if study.options.quality.max_prompts:
            lines.append(_line("quality", study.quality, study.has(study.quality)))
    if command == "discover" or study.options.callbacks.discovery:
        lines.append(_line("circuits", study.circuits, study.has(study.circuits)))
        lines.append(_line("report", study.study_report, study.has(study.study_report)))
    return "\n".join([*lines, *_estimates(study)])


def _autoencoders(study: Study) -> str:
    """Return what the autoencoders are, and how many at a site."""
    sae = study.options.sae
    if not isinstance(sae, TrainedSae):
        return "taken as they are"
    recipe = study.recipe
    options = "".join(f", {name} {value}" for name, value in recipe["options"].items())
    parts = list(dict.fromkeys(key.part.name for key in study.saes))
    seeds = list(dict.fromkeys(str(key.seed) for key in study.saes))
    several = f"; one for each of {', '.join(parts)}" if len(parts) > 1 else ""
    several += f"; from seeds {', '.join(seeds)}" if len(seeds) > 1 else ""
    return f"{recipe['hidden_dim']} features{options}, batches of {recipe['batch_size']}{several}"


def _line(stage: str, folder: Path, is_there: bool) -> str:
    return f"{stage:<15}{'found' if is_there else 'to build':<9}{folder}"


def _estimates(study: Study) -> list[str]:
    """Return the lines of what is missing."""
    if study.has_store():
        lines, n_rows = [], read_json(study.store / MANIFEST)["n_rows"]
    else:
        lines, n_rows = _collection(study)
    lines += _guesses(study, n_rows)
    return lines or ["estimates      nothing is to be built"]


def _collection(study: Study) -> tuple[list[str], int]:
    """Return the lines about the collection, and the number of its rows at a site."""
    from refusal.activations.estimate import activation_bytes, measure
    from refusal.activations.labels import is_published
    from refusal.activations.study import make_study
    from refusal.models.selftest import check_model
    from refusal.models.weightless import has_weights

    start = time.perf_counter()
    can_run = study.plan is not None or has_weights(study.source, study.revision)
    chat = stages.load_model(study) if can_run else stages.load_without_weights(study)
    planned = make_study(chat, study.prompts, stages.collection_recipe(study))
    n_more = planned.most_rows - planned.n_rows
    responses = f" and at most {n_more:,} of responses" if n_more else ""
    exactly = "at most" if n_more else "exactly"
    disk = next(folder for folder in (study.store, *study.store.parents) if folder.is_dir())
    needed, free = planned.bytes_needed(chat), shutil.disk_usage(disk).free
    lines = [
        f"rows           {planned.n_rows:,} of prompts{responses} at each site, in {len(planned.shards)} shards",
        f"disk           {needed / 1e9:.2f} GB, {exactly} {activation_bytes(planned, chat):,} bytes of it activations; "
        f"{free / 1e9:.1f} GB are free",
    ]
    n_there = sum(is_published(study.store / shard.file) for shard in planned.shards)
    if n_there:
        lines.append(f"begun          {n_there} of {len(planned.shards)} shards are there; the figures are for all")
    try:
        check_disk(disk, needed + planned.temporary_bytes(chat))
    except InputError as error:
        lines.append(f"does not fit   {error}")
    if not can_run:
        lines.append(f"memory, time   not measured: the weights of {study.name} are not on this machine")
        return lines, planned.most_rows
    check_model(chat, [prompt.text for prompt in study.prompts])
    before = STARTUP + time.perf_counter() - start
    options = study.options.collect
    cost = measure(chat, planned, disk, token_budget=options.token_budget, compression=options.compression)
    memory = [f"{(cost.peak_bytes + FIGURE_BYTES) / 1e9:.2f} GB" if cost.peak_bytes else "not measured on this system"]
    memory += [f"{cost.device_bytes / 1e9:.2f} GB on the GPU"] if cost.device_bytes else []
    measured = f"measured on {cost.n_measured} of {cost.n_batches} batches"
    lines.append(f"memory         {', '.join(memory)}; {measured}")
    lines.append(f"time           {_duration(before + cost.seconds)}; {measured}")
    return lines, planned.most_rows


def _guesses(study: Study, n_rows: int) -> list[str]:
    """Return the lines about training, measuring and discovery, none where nothing is missing."""
    options, (n_layers, d_model) = study.options, study.shape
    weights = 12 * n_layers * d_model**2  # of the blocks, in a transformer of the usual proportions
    missing = [] if options.command == "collect" else [key for key in study.saes if not study.has_sae(key)]
    lines, disk, memory, seconds, speed = [], 0, 4 * weights, 0.0, _speed()
    if missing and isinstance(options.sae, TrainedSae):
        numbers = 2 * d_model * study.recipe["hidden_dim"]
        together = groups.groups(missing, groups.at_once(study, n_rows))
        steps = [_n_steps(study, group[0].part, n_rows) for group in together]
        told = ", ".join(f"{len(group)} in {n:,} steps" for group, n in zip(together, steps, strict=True))
        lines.append(f"together       {told}")
        disk = 4 * numbers * len(missing)
        memory = max(memory, groups.bytes_of(study, n_rows) * max(map(len, together)))
        step = STEP_SECONDS + STEP * numbers * study.recipe["batch_size"] / speed
        seconds = LOADING + step * sum(n * len(group) for group, n in zip(together, steps, strict=True))
    a_token = 2 * weights / (EFFICIENCY * speed)
    n_tokens = sum(len(prompt.text) // LETTERS_PER_TOKEN + TEMPLATE_TOKENS for prompt in study.prompts)
    if options.command != "collect" and options.quality.max_prompts and not study.has(study.quality):
        measuring, told = _measuring(study, n_tokens / len(study.prompts), a_token)
        lines.append(f"measuring      {told}: {_duration(measuring)}")
        seconds += measuring
    if options.callbacks.discovery and not study.has(study.circuits):
        seconds += PASSES * n_tokens * a_token
    if not seconds:
        return []
    return [
        *lines,
        f"guessed        training, measuring and discovery: {disk / 1e9:.2f} GB more on disk, "
        f"{memory / 1e9:.2f} GB of memory, {_duration(seconds)} on this CPU",
    ]


def _measuring(study: Study, n_tokens: float, a_token: float) -> tuple[float, str]:
    """Return how many seconds measuring the autoencoders takes, and how often the model is run.

    Args:
        study: The study.
        n_tokens: Of a prompt; responses add little, as few of their tokens tell whether they refuse.
        a_token: Seconds that the model takes for one.
    """
    n_heldout = sum(prompt.fold == "heldout" for prompt in study.prompts)
    n_prompts = min(study.options.quality.max_prompts, n_heldout)
    n_runs = 1 + len(study.sites) + len(study.saes)  # the model as it is, each site's mean, each autoencoder
    seconds = n_runs * n_prompts * n_tokens * a_token + PROBING * len(study.saes)
    return seconds, f"{n_runs} runs of the model on {n_prompts} held-out prompts"


def _n_steps(study: Study, part: Part, n_rows: int) -> int:
    """Return about how many steps a part's training takes, of a store with ``n_rows`` rows a site."""
    recipe = study.recipe
    own = [p for p in study.prompts if p.fold != "heldout" and part.has(Stratum(p.category, p.split, 1))]
    rows = n_rows * len(own) / len(study.prompts)
    return math.ceil(min(recipe["epochs"] * rows, recipe["max_rows"]) / recipe["batch_size"])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _speed() -> float:
    """Return this CPU's multiplications and additions a second, measured on one product of matrices."""
    a = np.ones((1024, 1024), dtype=np.float32)
    _ = a @ a
    start = time.perf_counter()
    _ = a @ a
    return 2 * 1024**3 / (time.perf_counter() - start)
