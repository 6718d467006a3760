"""How much of a model's refusal do knock-outs of one direction a category explain, by how the direction is found?

    python benchmarks/explained_share.py MODEL_FOLDER ACTIVATIONS_FOLDER

ACTIVATIONS_FOLDER is what collect.py made of the model (outputs/<model>/activations/<fingerprint>). Prints, for
several starting blocks, the mean fall of the refusal score of refused prompts when their own category is knocked out,
as a share of how much higher refused prompts score than complied ones, and the index T; and the share that random
directions take, and the KL divergence of the next token on complied prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refusal.activations.store import ActivationStore
from refusal.calibration.whole import SETTINGS
from refusal.comparison.crossfit import CrossFit
from refusal.comparison.directions import unit, window_directions, write_directions
from refusal.comparison.knockout import KnockOuts
from refusal.comparison.material import gather
from refusal.comparison.transfer import index_of, measure_drops, own_drop, voting_layers
from refusal.models.chat import load_chat_model

Directions = Callable[[CrossFit, int, int], np.ndarray]
"""From the prompts in parts, the first block and the one after the last, as of ``directions``."""


def plain(fit: CrossFit, _start: int, _stop: int) -> np.ndarray:
    """The plain difference of means of each write."""
    return unit(fit.difference(fit.contrast.writes))


def without_noise(fit: CrossFit, _start: int, stop: int) -> np.ndarray:
    """The same without the noise of few prompts: the index."""
    return write_directions(fit, stop)


def plain_window(fit: CrossFit, start: int, _stop: int) -> np.ndarray:
    """The plain difference of means of what has been written since the start."""
    since = fit.difference(fit.contrast.writes)
    since[:, :, :start] = 0
    flat = since.reshape(*since.shape[:2], -1, since.shape[-1])
    return unit(flat.cumsum(2).reshape(since.shape))


WAYS: dict[str, tuple[Directions, bool]] = {
    "each write, plain": (plain, False),
    "each write, without noise (direct)": (without_noise, False),
    "written since, plain": (plain_window, True),
    "written since, without noise (window)": (window_directions, True),
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("activations", type=Path)
    parser.add_argument("--starts", type=int, nargs="+", default=[10, 15, 20], help="starting blocks")
    options = parser.parse_args()
    chat = load_chat_model(options.model, name="model")
    material = gather(chat, ActivationStore(options.activations), {}, SETTINGS)
    contrast, voting = material.contrast, material.voting
    quarters = KnockOuts(chat, contrast, material.tokens)
    stop, effect = voting_layers(contrast.n_layers), material.effect
    print(f"{len(contrast.category)} prompts, effect {effect:.2f} nats, knocked out to block {stop - 1}")
    print("refused prompts a category:", contrast.count(refused=True)[voting].tolist())
    for start in options.starts:
        for name, (directions, together) in WAYS.items():
            for parts, knock_outs in {"halves": quarters.by_halves(), "quarters": quarters}.items():
                off = directions(knock_outs.fit, start, stop)
                matrix = measure_drops(knock_outs, off, start, stop, together=together).matrix()
                share, index = own_drop(matrix, voting) / effect, index_of(matrix, voting)
                print(f"from block {start:2d}  {name:38s} {parts:8s} share {share:5.2f}  T {index:5.2f}", flush=True)
            _controls(quarters, directions(quarters.fit, start, stop), start, stop, effect, together)


def _controls(knock_outs: KnockOuts, off: np.ndarray, start: int, stop: int, effect: float, together: bool) -> None:
    random = unit(np.random.default_rng(0).standard_normal(off.shape, dtype=np.float32))
    (fall,) = knock_outs.falls([knock_outs.off(random, start, stop, together=together)])
    divergence = knock_outs.divergence(knock_outs.off(off, start, stop, together=together)).mean()
    print(f"{'':15s}random directions {fall.mean() / effect:5.2f}, KL on complied prompts {divergence:.3f}", flush=True)


if __name__ == "__main__":
    main()
