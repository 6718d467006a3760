"""Which stage needs which: each function builds what it needs, then its own result, or finds it.

    collect -> train -> quality -> discover -> heatmaps, report

A result that stands complete under its fingerprint is found without importing torch; one that is missing is built
under a lock, so that two processes never build the same; ``force`` builds again what is older than this process.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from refusal import InputError, groups, spread, stages
from refusal.artifacts import CARD, building, complete, write_atomic
from refusal.config.schemas import Options, PretrainedSae, Trainer
from refusal.forecast import forecast
from refusal.progress import say
from refusal.sae.training.scope import SaeKey
from refusal.stages import have
from refusal.study import MANIFEST, Study


@dataclass(frozen=True)
class Locations:
    """The folders of a study's results, whether or not they are there yet."""

    model_dir: Path
    data_analysis: Path
    store: Path
    saes: Mapping[str, Path]
    """By site; where there are several at one, by site, part of the prompts and seed, in words."""
    quality: Path
    circuits: Path
    visualizations: Path
    report: Path
    study_report: Path


def locations(options: Options) -> Locations:
    """Return where a study's results stand."""
    study = Study(options)
    return Locations(
        model_dir=study.folder,
        data_analysis=study.data_analysis,
        store=study.store,
        saes=_saes(study),
        quality=study.quality,
        circuits=study.circuits,
        visualizations=study.visualizations,
        report=study.report,
        study_report=study.study_report,
    )


def plan(options: Options) -> str:
    """Return what a command would do, and what that would take, without doing it."""
    study = Study(options)
    _check_what_follows(study)
    return forecast(study)


def collect(options: Options) -> Path:
    """Have the activations, or this process's part of them, and the statistics of the prompts; return their folder."""
    study = Study(options)
    _collect(study)
    return study.store


def train(options: Options) -> dict[str, Path]:
    """Have the autoencoders, and how good they are; return their folders, named as in :class:`Locations`.

    Raises:
        InputError: One is missing, and ``train_saes`` is false.
    """
    study = _whole(options)
    _check_what_follows(study)
    _train(study)
    if study.options.quality.max_prompts and have(
        study.quality, partial(study.has, study.quality), partial(stages.quality, study)
    ):
        say("quality", "found", study.quality)
    return _saes(study)


def discover(options: Options) -> Path:
    """Have the circuits and their comparison; return their folder."""
    study = _whole(options)
    if _discover(study):
        say("circuits", "found", study.circuits)
    return study.circuits


def heatmaps(options: Options) -> list[Path]:
    """Have the named heatmaps; return their paths."""
    study = _whole(options)
    _discover(study)
    is_found = have(study.visualizations, partial(_has_heatmaps, study), partial(stages.draw, study))
    paths = sorted(study.visualizations.glob("*.png"))
    for path in paths:
        say("heatmap", "found" if is_found else "built", path)
    return paths


def report(options: Options) -> Path:
    """Have the report of this study and make it the latest; return the latest report's folder."""
    study = _whole(options)
    _discover(study)
    folder = study.study_report
    is_found = have(folder, partial(_has_report, study), partial(stages.report, study))
    with building(study.report):
        _make_latest(folder, study.report)
    say("report", "found" if is_found else "built", study.report / "report.html")
    return study.report


def _whole(options: Options) -> Study:
    """Return the study of a command that needs all of the activations."""
    if options.shard is not None:
        raise InputError(f"shard={options.shard} is for collect.py; the other commands need all of the activations")
    return Study(options)


def _collect(study: Study) -> None:
    """Have the activations. No lock: several processes fill the same store together, shard by shard."""
    store, portion = study.store, study.portion  # mistakes in the options come before anything is built
    if portion is not None and study.options.force:
        raise InputError(
            f"force=true and shard={portion} exclude each other, as every part would remove what others made; "
            f"delete {store} instead"
        )
    stages.analyze(study)
    if study.has_store():
        say("activations", "found", store)
        return
    if study.options.force:
        with building(store):
            if (store / MANIFEST).is_file() and not study.has(store, MANIFEST):
                _remove(store)
    stages.collect(study)


def _train(study: Study) -> None:
    missing = [key for key in study.saes if not study.has_sae(key)]
    if missing and not study.options.train_saes:
        folder = study.sae(missing[0])
        raise InputError(f"there is no autoencoder in {folder}, and train_saes=false; run train.py first")
    is_pretrained = isinstance(study.options.sae, PretrainedSae)
    if is_pretrained:
        stages.check_pretrained(study, missing)
    elif missing:
        _check_training(study)
    _collect(study)
    build_all = (
        _adopt if is_pretrained else spread.have if study.options.trainer.strategy == spread.SITES else groups.have
    )
    n_found = len(study.saes) - (build_all(study, missing) if missing else 0)
    if n_found:
        say("sae", "found", f"{study.folder / 'saes'} ({n_found} of {len(study.saes)})")


def _adopt(study: Study, keys: Sequence[SaeKey]) -> int:
    """Have autoencoders that were there already as ours; return how many were not yet."""
    are_there = [have(study.sae(key), partial(study.has_sae, key), partial(stages.adopt, study, key)) for key in keys]
    return are_there.count(False)


def _check_training(study: Study) -> None:
    """Find out before anything is collected whether autoencoders can be trained on it, and here."""
    trainer = study.options.trainer
    _check_devices(trainer)
    study.check_sampler()
    stages.check_training(study, spread.trainers(trainer)[0] if trainer.strategy == spread.SITES else trainer)


def _check_devices(trainer: Trainer) -> None:
    """Find out whether all processes of a training are its own: others would run the whole command, and wait here."""
    starts_its_own = trainer.strategy == spread.SITES or trainer.strategy.endswith(("_spawn", "_fork"))
    if trainer.num_nodes != 1 or not (starts_its_own or re.fullmatch("1|[0-9]+,", trainer.devices)):
        raise InputError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes} trainer.strategy="
            f"{trainer.strategy}: for several devices of one machine use trainer=sites (each trains some of the "
            "autoencoders) or trainer=ddp (they share each batch)"
        )


def _saes(study: Study) -> dict[str, Path]:
    return {key.label(study.sae_seed): study.sae(key) for key in study.saes}


def _check_what_follows(study: Study) -> None:
    """Find out before anything is built whether the steps that follow the training can be done."""
    if any(vars(study.options.callbacks).values()):
        study.check_readable()


def _discover(study: Study) -> bool:
    """Have the circuits; return whether they were there."""
    study.check_readable()
    is_there = partial(study.has, study.circuits)
    if not is_there() and not (study.has_store() and all(map(study.has_sae, study.saes))):
        _train(study)
    return have(study.circuits, is_there, partial(stages.discover, study))


def _has_heatmaps(study: Study) -> bool:
    """Whether the heatmaps that stand there are those of this study."""
    card = complete(study.visualizations) if study.has(study.visualizations) else None
    return card is not None and card.get("circuits") == study.circuits.name


def _has_report(study: Study) -> bool:
    """Whether the report that stands there says what is known of the autoencoders, and holds texts if it should."""
    card = complete(study.study_report) if study.has(study.study_report) else None
    wanted = (stages.measured(study), study.options.report.texts)
    return card is not None and (card.get("quality"), card.get("texts")) == wanted


def _remove(folder: Path) -> None:
    """Remove a store, first of all what says that it is complete."""
    try:
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise InputError(f"cannot remove {folder}: {error.strerror or error}") from error


def _make_latest(study_report: Path, latest: Path) -> None:
    """Copy a study's report to where the latest one stands, its card last; figures of another make way."""
    if complete(latest) == complete(study_report):
        return
    files = [path.relative_to(study_report) for path in sorted(study_report.rglob("*")) if path.is_file()]
    (latest / CARD).unlink(missing_ok=True)
    for path in (latest / "figures").glob("*"):
        if path.relative_to(latest) not in files:
            path.unlink()
    for path in sorted(files, key=lambda path: path.name == CARD):
        write_atomic(latest / path, (study_report / path).read_bytes())
