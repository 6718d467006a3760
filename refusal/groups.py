"""Autoencoders that are trained side by side, from one reading of the store: which together, under which locks.

1. Those that see the same rows, which are those of the same part of the prompts, go together, as many as fit.
2. Each has its own lock and is published by itself. Locks are taken in one order, so that processes whose groups
   overlap wait for each other and never in a circle; what another has made meanwhile is not made again.
3. A killed training goes on from its checkpoints, in a hidden folder that is named by what is trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path

from refusal import InputError, stages
from refusal.artifacts import CARD, building, fingerprint, read_json, write_json
from refusal.config.schemas import TrainedSae
from refusal.progress import say
from refusal.sae.training.scope import SaeKey
from refusal.study import MANIFEST, STARTED, Study

ROOM = 2_000_000_000  # bytes for weights, gradients, Adam's two moments and the rows that are held
MEMBERS = "members.json"


def have(study: Study, keys: Sequence[SaeKey]) -> int:
    """Have these autoencoders; return how many had to be trained."""
    rows = read_json(study.store / MANIFEST)["n_rows"]
    return sum(_have_group(study, group) for group in groups(keys, at_once(study, rows)))


def at_once(study: Study, n_rows: int) -> int:
    """Return how many autoencoders are trained side by side on a store with ``n_rows`` rows a site."""
    sae = study.options.sae
    assert isinstance(sae, TrainedSae)
    return sae.at_once or max(1, ROOM // bytes_of(study, n_rows))


def bytes_of(study: Study, n_rows: int) -> int:
    """Return what one autoencoder takes of the memory while it trains, with the rows of its site."""
    from refusal.activations.source import MEMORY_BYTES

    d_model = study.shape[1]
    training = 4 * 4 * 2 * d_model * study.recipe["hidden_dim"]  # weights, gradients, two moments; encoder, decoder
    return training + min(MEMORY_BYTES, 4 * d_model * n_rows)


def groups(keys: Sequence[SaeKey], size: int) -> list[list[SaeKey]]:
    """Put autoencoders of the same part, which stand next to each other, together, at most ``size`` in a group."""
    by_part = [list(same) for _, same in groupby(keys, lambda key: key.part)]
    return [same[i : i + size] for same in by_part for i in range(0, len(same), size)]


def _have_group(study: Study, keys: Sequence[SaeKey]) -> int:
    with ExitStack() as locks:
        for folder in sorted(map(study.sae, keys)):
            locks.enter_context(building(folder))
        missing = [key for key in keys if not study.has_sae(key)]  # another process may have built some meanwhile
        if missing:
            with checkpoints(study, missing) as folder:
                stages.train(study, missing, folder)
            for key in missing:
                say("sae", "built", study.sae(key))
    return len(missing)


@contextmanager
def checkpoints(study: Study, keys: Sequence[SaeKey]) -> Iterator[Path]:
    """Yield the folder of a training's checkpoints; remove it when the training has ended well.

    It is called under the locks of all autoencoders that are trained. What an earlier run left stays, but with
    ``force``, which builds from the start.
    """
    home = study.folder / "saes"
    members = [str(study.sae(key).relative_to(home)) for key in keys]
    folder = home / f".training-{fingerprint({'members': members})}"
    if study.options.force and not _is_since(folder / MEMBERS, STARTED):
        shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / MEMBERS, members)
    try:
        yield folder
    except BaseException:
        if [path.name for path in folder.iterdir()] == [MEMBERS]:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    for other in home.glob(f".training-*/{MEMBERS}"):
        with suppress(InputError, OSError):  # its own process has just removed it
            begun = other.stat().st_mtime
            if all(_is_since(home / name / CARD, begun) for name in read_json(other)):  # it came to its end elsewhere
                shutil.rmtree(other.parent, ignore_errors=True)


def _is_since(path: Path, moment: float) -> bool:
    return path.is_file() and path.stat().st_mtime > moment
