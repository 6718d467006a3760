"""Autoencoders spread over devices (``trainer.strategy=sites``): a process for each, which trains its share of them.

What comes out is what one process would have made. Each process starts anew (spawn), with its share of the cores; one
that fails ends the command with its line when the others have finished theirs, whose autoencoders stay.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from refusal import InputError, groups, stages
from refusal.config.schemas import Options, Trainer
from refusal.sae.training.scope import SaeKey
from refusal.study import Study

SITES = "sites"


def have(study: Study, keys: Sequence[SaeKey]) -> int:
    """Have these autoencoders; return how many had to be trained."""
    import torch

    options = [replace(study.options, trainer=one) for one in trainers(study.options.trainer)[: len(keys)]]
    threads = max(1, torch.get_num_threads() // len(options))
    shares = [keys[i :: len(options)] for i in range(len(options))]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(options), spawn, _begin, (threads,)) as pool:
        try:
            n_trained = sum(pool.map(_have_share, options, shares))
        except BrokenProcessPool as error:
            raise InputError(
                "a process of the training was killed (its memory may have run out: fewer trainer.devices, or "
                "sae.at_once=1); the same command goes on from what is finished"
            ) from error
    stages.log_curves(study, keys)
    return n_trained


def trainers(trainer: Trainer) -> list[Trainer]:
    """Return what each process trains with, alone on its device.

    Raises:
        InputError: There are not so many GPUs, or it is no number of devices.
    """
    import torch

    n_gpus = torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 0
    wanted = max(1, n_gpus) if trainer.devices == "auto" else int(trainer.devices) if trainer.devices.isdigit() else 0
    if wanted < 1 or wanted > (n_gpus or wanted):
        there = f"of {n_gpus} GPUs" if n_gpus else "of processes on the CPU"
        raise InputError(f"trainer.devices={trainer.devices}: trainer.strategy={SITES} takes a number {there}, or auto")
    devices = [f"{i}," for i in range(wanted)] if n_gpus else ["1"] * wanted
    return [replace(trainer, strategy="auto", devices=device) for device in devices]


def _begin(n_threads: int) -> None:
    """Take a share of the cores, before anything that counts them is imported; end when the command is killed."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(n_threads)
    threading.Thread(target=_end_with_the_command, daemon=True).start()


def _end_with_the_command() -> None:
    command = multiprocessing.parent_process()
    if command is not None:
        command.join()
        os._exit(1)


def _have_share(options: Options, keys: Sequence[SaeKey]) -> int:
    return groups.have(Study(options), keys)
