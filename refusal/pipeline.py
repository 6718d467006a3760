"""Which stage needs which: each function builds what it needs, then its own result, or finds it.

    collect -> train -> discover -> heatmaps, report

A result that stands complete under its fingerprint is found without importing torch; one that is missing is built
under a lock, so that two processes never build the same; ``force`` builds again what is older than this process.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal import InputError
from refusal.artifacts import CARD, building, clean_name, complete, publish, read_json, write_atomic, write_json
from refusal.config.schemas import Options
from refusal.models.sites import Site
from refusal.progress import say
from refusal.study import Study

if TYPE_CHECKING:
    from refusal.models.chat import ChatModel

STARTED = time.time()
PACKAGES = ("torch", "transformers", "pytorch-lightning", "numpy", "h5py")


@dataclass(frozen=True)
class Locations:
    """The folders of a study's results, whether or not they are there yet."""

    model_dir: Path
    data_analysis: Path
    store: Path
    saes: Mapping[str, Path]
    """By site."""
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
        saes={str(site): study.sae(site) for site in study.sites},
        circuits=study.circuits,
        visualizations=study.visualizations,
        report=study.report,
        study_report=study.study_report,
    )


def collect(options: Options) -> Path:
    """Have the activations, and the statistics of the prompts; return the store's folder."""
    study = Study(options)
    _ = study.sites, study.prompts  # mistakes in them come before anything is built
    _analyze(study)
    with building(study.store):
        if _is_there(study.store, options, "manifest.json"):
            say("activations", "found", study.store)
            return study.store
        if options.force:
            shutil.rmtree(study.store, ignore_errors=True)
        _collect(study)
    return study.store


def train(options: Options) -> dict[str, Path]:
    """Have an autoencoder at each site; return their folders by site.

    Raises:
        InputError: One is missing, and ``train_saes`` is false.
    """
    study = Study(options)
    folders = {site: study.sae(site) for site in study.sites}
    store = collect(options)
    n_found = sum(_have_sae(study, store, site, folder) for site, folder in folders.items())
    if n_found:
        say("sae", "found", f"{study.folder / 'saes'} ({n_found} of {len(folders)} sites)")
    return {str(site): folder for site, folder in folders.items()}


def discover(options: Options) -> Path:
    """Have the circuits and their comparison; return their folder."""
    study = Study(options)
    if _is_there(study.circuits, options):
        say("circuits", "found", study.circuits)
        return study.circuits
    saes = _trained(study)
    with building(study.circuits):
        if not _is_there(study.circuits, options):
            names = {site: folder.name for site, folder in saes.items()}
            with publish(study.circuits, _card(study, saes=names)) as folder:
                _discover(study, folder)
            say("circuits", "built", study.circuits)
    return study.circuits


def heatmaps(options: Options) -> list[Path]:
    """Have the named heatmaps; return their paths."""
    study = Study(options)
    circuits = _discovered(study)
    comparison = read_json(circuits / f"{clean_name(study.name)}_comparison.json")
    from refusal.report.heatmaps import draw_heatmaps

    study.visualizations.mkdir(parents=True, exist_ok=True)
    paths = draw_heatmaps(comparison, study.visualizations)
    for path in paths:
        say("heatmap", "built", path)
    return paths


def report(options: Options) -> Path:
    """Have the report of this study and make it the latest; return the latest report's folder."""
    study = Study(options)
    circuits = _discovered(study)
    is_there = _is_there(study.study_report, options)
    if not is_there:
        from refusal.report.build import build

        saes = [study.sae(site) for site in study.sites]
        with building(study.study_report), publish(study.study_report, _card(study)) as folder:
            write_json(folder / "verdict.json", read_json(circuits / "verdict.json"))
            build(folder, circuits, data_analysis=study.data_analysis, saes=saes, command=_command())
    _make_latest(study.study_report, study.report)
    say("report", "found" if is_there else "built", study.report / "report.html")
    return study.report


def plan(options: Options) -> str:
    """Return what a command would do: each stage, whether its result is there, and how large the rows would be."""
    study = Study(options)
    n_layers, d_model = study.shape
    lines = [
        f"model          {study.name}: {n_layers} blocks, d_model {d_model}",
        f"prompts        {len(study.prompts)} in {len({prompt.category for prompt in study.prompts})} categories",
        f"sites          {len(study.sites)}: {', '.join(map(str, study.sites))}",
        _planned("activations", study.store, (study.store / "manifest.json").is_file()),
    ]
    if options.command != "collect":
        recipe = study.recipe
        lines.append(
            f"autoencoders   {recipe['hidden_dim']} features, k {recipe['k']}, batches of {recipe['batch_size']}"
        )
        lines += [_planned("sae", study.sae(site), complete(study.sae(site)) is not None) for site in study.sites]
    if options.command == "discover":
        lines.append(_planned("circuits", study.circuits, complete(study.circuits) is not None))
        lines.append(_planned("report", study.study_report, complete(study.study_report) is not None))
    return "\n".join(lines)


def _planned(stage: str, folder: Path, is_there: bool) -> str:
    return f"{stage:<15}{'found' if is_there else 'to build':<9}{folder}"


def _have_sae(study: Study, store: Path, site: Site, folder: Path) -> bool:
    """Have one site's autoencoder; return whether it was there."""
    with building(folder):
        if _is_there(folder, study.options):
            return True
        if not study.options.train_saes:
            raise InputError(f"there is no autoencoder in {folder}, and train_saes=false; run train.py first")
        _train(study, store, site, folder)
        say("sae", "built", folder)
    return False


def _trained(study: Study) -> dict[str, Path]:
    """Return the autoencoders' folders by site, trained first where one is missing."""
    folders = {str(site): study.sae(site) for site in study.sites}
    return folders if all(_is_there(folder, study.options) for folder in folders.values()) else train(study.options)


def _discovered(study: Study) -> Path:
    """Return the circuits' folder, found first where they are missing."""
    return study.circuits if _is_there(study.circuits, study.options) else discover(study.options)


def _is_there(folder: Path, options: Options, card: str = CARD) -> bool:
    """Whether a result is complete, and was not to be built again."""
    path = folder / card
    return path.is_file() and not (options.force and path.stat().st_mtime < STARTED)


def _card(study: Study, **more: Any) -> dict[str, Any]:
    """Return what made a result: configuration, command, versions, seed."""
    return {
        "config": asdict(study.options),
        "command": _command(),
        "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}},
        "seed": study.seed,
        "content": study.content,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }


def _command() -> str:
    import shlex

    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def _analyze(study: Study) -> None:
    """Write the prompts' statistics, unless they stand there already."""
    from refusal.prompts.analyze import FIGURE, STATISTICS, analyze
    from refusal.prompts.statistics import split_statistics

    statistics, figure = study.data_analysis / STATISTICS, study.data_analysis / FIGURE
    if figure.is_file() and statistics.is_file() and read_json(statistics) == split_statistics(study.prompts):
        return
    analyze(study.prompts, study.data_analysis)


def _chat(study: Study) -> ChatModel:
    """Load the model; write it first, if it is a planted one that is not there yet."""
    from refusal.models.chat import load_chat_model

    if study.plan is not None and isinstance(study.source, Path):
        with building(study.source):
            if complete(study.source) is None:
                from refusal.models.planted import write_planted

                with publish(study.source, {"plan": asdict(study.plan)}) as folder:
                    write_planted(folder, study.vocabulary, study.plan)
                say("model", "built", study.source)
    model = study.options.model
    return load_chat_model(
        study.source,
        name=study.name,
        revision=study.revision,
        dtype=model.dtype,
        device=model.device,
        attn_implementation=model.attn_implementation,
        system_prompt=model.system_prompt,
    )


def _collect(study: Study) -> None:
    from refusal.activations.collect import collect as run
    from refusal.models.refusal_score import REFUSAL_PHRASES
    from refusal.models.selftest import check_padding

    options, chat = study.options, _chat(study)
    check_padding(chat, [prompt.text for prompt in study.prompts])
    run(
        chat,
        study.prompts,
        study.sites,
        study.store,
        response_tokens=options.model.response_tokens,
        token_budget=options.collect.token_budget,
        seed=study.seed,
        phrases=(*REFUSAL_PHRASES, *(options.model.refusal_phrases or ())),
        refusal_tokens=options.model.refusal_tokens,
        max_rows=options.collect.max_rows,
        writes=options.collect.writes,
        dtype=options.collect.store_dtype,
        card=_card(study),
    )


def _train(study: Study, store: Path, site: Site, folder: Path) -> None:
    from refusal.activations.store import ActivationStore
    from refusal.sae.base import Recipe
    from refusal.sae.train import train_sae

    sampler = study.options.sampler
    made_from = {"content": study.content, "fingerprint": folder.name.rsplit("-", 1)[-1]}
    with publish(folder, _card(study, **made_from)) as temporary:
        train_sae(
            ActivationStore(store),
            site,
            Recipe(**study.recipe),
            temporary,
            model=study.name,
            sampler=partial(_locate(sampler.target), **sampler.arguments()),
            last_fraction=sampler.last_fraction,
            trainer=asdict(study.options.trainer),
            logger=_logger(study, site),
            cfg=made_from,
        )


def _logger(study: Study, site: Site) -> Any:
    """Return the logger of a training's curves: the W&B run that is open, files, or none."""
    kind = study.options.logger.kind
    if kind == "wandb" and "wandb" in sys.modules and sys.modules["wandb"].run is not None:
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(experiment=sys.modules["wandb"].run, prefix=str(site))
    if kind in ("csv", "tensorboard"):
        loggers = import_module("pytorch_lightning.loggers")
        make = loggers.CSVLogger if kind == "csv" else loggers.TensorBoardLogger
        return make(save_dir=study.folder / "logs", name=str(site), version=study.sae(site).name)
    return None


def _discover(study: Study, folder: Path) -> None:
    from refusal.activations.store import ActivationStore
    from refusal.comparison.discover import Settings, discover
    from refusal.sae.files import load_sae

    options, chat = study.options.circuits, _chat(study)
    saes = {site: load_sae(study.sae(site), model=study.name, site=site).to(chat.device) for site in study.sites}
    discover(
        chat,
        ActivationStore(study.store),
        saes,
        folder,
        model=study.name,
        data=study.options.data.name,
        fingerprint=study.circuits.name,
        settings=Settings(
            method=options.target.split(".")[-2],
            node_threshold=options.node_threshold,
            edge_threshold=options.edge_threshold,
            top_n_per_layer=options.top_n_per_layer,
            separate_safe_toxic=options.separate_safe_toxic,
            positions=options.positions,
            baseline=options.baseline,
            min_per_category=options.min_per_category,
            permutations=options.permutations,
            bootstrap=options.bootstrap,
            seed=study.seed,
        ),
        attribute=partial(_locate(options.target), **options.arguments()),
    )


def _locate(target: str) -> Any:
    """Return what an import path such as ``refusal.circuits.attribution.atp.attribute`` names."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no {target}: {error}") from error


def _make_latest(study_report: Path, latest: Path) -> None:
    """Copy a study's report to where the latest one stands."""
    for path in sorted(study_report.rglob("*")):
        if path.is_file():
            write_atomic(latest / path.relative_to(study_report), path.read_bytes())
