"""What a collection costs against the same batches through one bare ``generate`` of 16 greedy tokens.

    python benchmarks/collection.py [MODEL] [--prompts 96] [--rounds 3] [--only NAME ...] [--json FILE]

MODEL is a chat model's folder (SmolLM2-135M with its refusal update). The prompts are OR-Bench's own, half of them
toxic. Contestants, which take turns in one process:

    generate      ``model.generate`` on the collection's batches in their order; nothing is kept
    residuals     the collection: rows of every residual site, component writes, labels, scores, shards on disk
    no_writes     the same without component writes
    all_sites     rows of every residual, attention and MLP site, and component writes
    earlier       the usual way: hooks on every block stay on while ``generate`` runs, what they see is gathered on the
                  CPU, a ``torch.save`` for each category ends it

A ratio is that of a contestant to ``generate`` in the same round; of the rounds' ratios the median and the best are
printed, by wall clock and by processor time of all threads, which says more where other jobs share the machine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

THREADS = 2
ENVIRONMENT = {  # read when torch is imported; spinning threads lose whole scheduler slices where another job runs
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
}
os.environ.update(ENVIRONMENT)
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch  # noqa: E402

from refusal.activations.collect import collect  # noqa: E402
from refusal.activations.recipe import Recipe  # noqa: E402
from refusal.models.architectures import find  # noqa: E402
from refusal.models.chat import Batch, ChatModel, Encoded, load_chat_model  # noqa: E402
from refusal.models.sites import Site  # noqa: E402
from refusal.prompts.mini import read_mini  # noqa: E402
from refusal.prompts.prompt import FOLDS, Prompt  # noqa: E402
from refusal.prompts.select import cap, keep_categories  # noqa: E402

RESPONSE_TOKENS = 16
TARGET = 1.05
CATEGORIES = ("harmful", "illegal")


@dataclass
class Recorder(ChatModel):
    """A chat model that remembers the batches it was given."""

    batches: list[tuple[list[Encoded], Batch]] = field(default_factory=list)

    def pad(self, prompts: Sequence[Encoded], side: str | None = None) -> Batch:
        """As a chat model does."""
        batch = super().pad(prompts, side)
        self.batches.append((list(prompts), batch))
        return batch


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=Path("/tmp/w/smollm"), help="folder of a chat model")
    parser.add_argument("--prompts", type=int, default=96, help="how many prompts (96)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each contestant takes (3)")
    parser.add_argument("--only", nargs="+", help="only these contestants, beside generate")
    parser.add_argument("--json", type=Path, default=Path("collection.json"), help="where to write (collection.json)")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    chat = load_chat_model(options.model, name="benchmark")
    prompts = choose_prompts(options.prompts)
    with TemporaryDirectory() as folder:
        contestants = make_contestants(chat, prompts, Path(folder))
        kept = {name: run for name, run in contestants.items() if name in (options.only or contestants)}
        rounds = take_turns({"generate": contestants["generate"], **kept}, options.rounds)
    results = summarise(rounds)
    print_table(results)
    shapes = {"n_prompts": len(prompts), "n_layers": chat.n_layers, "d_model": chat.d_model, "threads": THREADS}
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "h5py")}
    versions["python"] = platform.python_version()
    content = {**shapes, **versions, "load": os.getloadavg()[0], "contestants": results, "rounds": rounds}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def choose_prompts(n_prompts: int) -> list[Prompt]:
    """Return OR-Bench prompts, as many of each category and split; a third of them calibrate."""
    prompts = keep_categories(read_mini(), CATEGORIES)
    wanted = cap([prompt for prompt in prompts if prompt.split != "hard"], n_prompts // (2 * len(CATEGORIES)), 0)
    return [replace(prompt, fold=FOLDS[min(number % 3, 1)]) for number, prompt in enumerate(wanted)]


def make_contestants(chat: ChatModel, prompts: Sequence[Prompt], folder: Path) -> dict[str, Callable[[], object]]:
    """Return what takes turns; a first collection, which is not timed, says which batches the others run."""
    residuals = Recipe(_sites(chat, "residuals"), response_tokens=RESPONSE_TOKENS)
    all_sites = replace(residuals, sites=_sites(chat, "residuals", "attention", "mlp"))

    def collecting(recipe: Recipe, chat: ChatModel = chat) -> None:
        with TemporaryDirectory(dir=folder) as store, redirect_stdout(io.StringIO()):
            collect(chat, prompts, recipe, Path(store), card={})

    recorder = Recorder(chat.model, chat.tokenizer, chat.name)
    collecting(residuals, recorder)
    category_of = {tuple(chat.encode(prompt.text).ids): prompt.category for prompt in prompts}
    categories = [[category_of[tuple(one.ids)] for one in encoded] for encoded, _ in recorder.batches]
    batches = [batch for _, batch in recorder.batches]
    return {
        "generate": lambda: generate(chat, batches),
        "residuals": lambda: collecting(residuals),
        "no_writes": lambda: collecting(replace(residuals, writes=False)),
        "all_sites": lambda: collecting(all_sites),
        "earlier": lambda: generate_with_hooks(chat, batches, categories, folder),
    }


def _sites(chat: ChatModel, *kinds: str) -> tuple[Site, ...]:
    return tuple(Site(kind, layer) for kind in kinds for layer in range(chat.n_layers))


def generate(chat: ChatModel, batches: Sequence[Batch]) -> None:
    """Prefill and 16 greedy tokens of each batch."""
    for batch in batches:
        chat.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            do_sample=False,
            max_new_tokens=RESPONSE_TOKENS,
            pad_token_id=chat.pad_id,
        )


def generate_with_hooks(
    chat: ChatModel, batches: Sequence[Batch], categories: Sequence[Sequence[str]], folder: Path
) -> None:
    """Keep what every block gives, at the prefill and at every decode step; save it by category."""
    kept: dict[str, dict[int, list[torch.Tensor]]] = {}
    now: list[str] = []

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: object, _arguments: object, output: Any) -> None:
            values = (output[0] if isinstance(output, tuple) else output).detach().cpu()
            for category in set(now):
                here = [i for i, name in enumerate(now) if name == category]
                kept.setdefault(category, {}).setdefault(layer, []).append(values[here])

        return hook

    blocks = find(chat.model)[1]
    handles = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(blocks)]
    try:
        for batch, now[:] in zip(batches, categories, strict=True):
            generate(chat, [batch])
    finally:
        for handle in handles:
            handle.remove()
    for category, activations in kept.items():
        torch.save(activations, folder / f"{category}.pt")


def take_turns(contestants: dict[str, Callable[[], object]], n_rounds: int) -> list[dict[str, tuple[float, float]]]:
    """Return (wall, processor) seconds of each contestant in each round; each round begins with another."""
    names, rounds = list(contestants), []
    for number in range(n_rounds):
        start = number % len(names)
        rounds.append({name: _seconds(contestants[name]) for name in names[start:] + names[:start]})
    return rounds


def summarise(rounds: Sequence[dict[str, tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return each contestant's seconds and its ratios to bare generation."""
    results = []
    for name in rounds[0]:
        result: dict[str, Any] = {"name": name}
        for clock, kind in enumerate(("wall", "cpu")):
            seconds = [turn[name][clock] for turn in rounds]
            ratios = [turn[name][clock] / turn["generate"][clock] for turn in rounds]
            result |= {f"{kind}_s": statistics.median(seconds), f"{kind}_best_s": min(seconds)}
            result |= {f"{kind}_ratio": statistics.median(ratios), f"{kind}_best_ratio": min(ratios)}
        results.append(result)
    return results


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Print a line for each contestant."""
    print(f"{'':<12}{'wall s':>8}{'best':>8}{'ratio':>8}{'best':>8}{'cpu s':>9}{'best':>8}{'ratio':>8}{'best':>8}")
    for result in results:
        numbers = [
            f"{result[f'{kind}{field}']:8.2f}"
            for kind in ("wall", "cpu")
            for field in ("_s", "_best_s", "_ratio", "_best_ratio")
        ]
        print(f"{result['name']:<12}{''.join(numbers[:4])} {''.join(numbers[4:])}")
    print(f"target: residuals at most {TARGET} x generate")
    of = {result["name"]: result for result in results}
    if {"residuals", "earlier"} <= of.keys():
        wall, cpu = (of["residuals"][name] / of["earlier"][name] for name in ("wall_best_s", "cpu_best_s"))
        print(f"residuals against earlier: {wall:.2f} x its wall clock, {cpu:.2f} x its processor time, best of each")


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main())
