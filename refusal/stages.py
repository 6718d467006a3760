"""How each stage is run: from a study's options to the arguments of what does the work.

What is heavy (torch, transformers, Lightning, matplotlib) is imported by the stage that needs it, so that a study whose
results are all there never loads it.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal import InputError
from refusal.artifacts import building, clean_name, publish, read_json, write_json
from refusal.config.schemas import PretrainedSae, Trainer
from refusal.progress import say
from refusal.sae.training.scope import SaeKey
from refusal.study import Study, locate

if TYPE_CHECKING:
    from refusal.activations.recipe import Recipe as CollectionRecipe
    from refusal.models.chat import ChatModel
    from refusal.sae.base import SparseAutoencoder

PACKAGES = ("torch", "transformers", "pytorch-lightning", "numpy", "h5py")


def have(folder: Path, is_there: Callable[[], bool], build: Callable[[], None]) -> bool:
    """Build a result, under its lock, unless it is there; return whether it was."""
    if is_there():
        return True
    with building(folder):
        if is_there():  # another process has built it meanwhile
            return True
        build()
    return False


def analyze(study: Study) -> None:
    """Write the prompts' statistics, unless they stand there already."""
    from refusal.prompts.analyze import FIGURE, STATISTICS, analyze
    from refusal.prompts.statistics import split_statistics

    folder = study.data_analysis
    are_there = study.has(folder, FIGURE) and study.has(folder, STATISTICS)
    if not (are_there and read_json(folder / STATISTICS) == split_statistics(study.prompts)):
        analyze(study.prompts, folder)


def collect(study: Study) -> None:
    """Collect the activations, or go on with what a killed run left."""
    from refusal.activations.collect import collect
    from refusal.models.selftest import check_model

    recipe = collection_recipe(study)
    chat, options = load_model(study), study.options.collect
    check_model(chat, [prompt.text for prompt in study.prompts])
    collect(
        chat,
        study.prompts,
        recipe,
        study.store,
        portion=study.portion,
        token_budget=options.token_budget,
        compression=options.compression,
        card=_card(study),
    )


def collection_recipe(study: Study) -> CollectionRecipe:
    """Return what decides the content of the activations, beside the model and the prompts."""
    from refusal.activations.recipe import Recipe
    from refusal.models.refusal_score import REFUSAL_PHRASES

    model, options = study.options.model, study.options.collect
    return Recipe(
        sites=tuple(study.sites),
        positions=tuple(options.positions),
        response_positions=options.response_positions,
        response_tokens=model.response_tokens,
        refused_by=model.refused_by,
        phrases=(*(model.refusal_phrases or REFUSAL_PHRASES), *model.extra_refusal_phrases),
        refusal_tokens=None if model.refusal_tokens is None else tuple(model.refusal_tokens),
        max_rows=options.max_rows,
        writes=options.writes,
        dtype=options.store_dtype,
        too_long=options.too_long,
        seed=study.seed,
    )


def check_training(study: Study, trainer: Trainer) -> None:
    """Find out before anything is collected whether autoencoders can be trained as the options say.

    Raises:
        InputError: It is no autoencoder, Lightning cannot train with these options, or a package is missing.
    """
    from refusal.sae.build import class_of
    from refusal.sae.training.fit import check_trainer

    class_of(study.recipe["target"])
    check_trainer(asdict(trainer))
    _logger(study, "")


def train(study: Study, keys: Sequence[SaeKey], checkpoints: Path) -> None:
    """Train autoencoders of the same part of the prompts side by side."""
    from refusal.activations.store import ActivationStore
    from refusal.sae.recipe import Recipe
    from refusal.sae.training.train import Job, train_saes

    options, sampler = study.options, study.options.sampler
    with ExitStack() as published:
        jobs = []
        for key in keys:
            folder = study.sae(key)
            made_from = {"content": study.content, "fingerprint": folder.name.rsplit("-", 1)[-1]}
            temporary = published.enter_context(publish(folder, _card(study, **made_from)))
            cfg = {**made_from, "scope": study.scope, "part": key.part.name}
            jobs.append(Job(key.site, key.seed, temporary, key.label(study.sae_seed), cfg))
        train_saes(
            ActivationStore(study.store),
            jobs,
            Recipe(**study.recipe),
            model=study.name,
            sampler=study.sampler(keys[0].part),
            order_seed=study.seed,
            last_fraction=sampler.last_fraction,
            kinds=sampler.kinds,
            trainer=asdict(options.trainer),
            logger=_logger(study, checkpoints.name.lstrip(".")),
            checkpoints=checkpoints,
        )


def log_curves(study: Study, keys: Sequence[SaeKey]) -> None:
    """Log to the open W&B run what processes without it have trained; other loggers' files they wrote themselves."""
    if study.options.logger.kind != "wandb" or (logger := _logger(study, "")) is None:
        return
    from refusal.sae.history import HISTORY, read_history
    from refusal.sae.training.side_by_side import log_points
    from refusal.sae.training.train import log_heldout

    for key in keys:
        name, history = key.label(study.sae_seed), read_history(study.sae(key) / HISTORY)
        log_points(logger, {name: history["train"]})
        log_heldout(logger, name, history["heldout"], history["train"][-1]["step"] + 1)


def quality(study: Study) -> None:
    """Measure the autoencoders."""
    from refusal.activations.store import ActivationStore
    from refusal.sae.history import HISTORY, read_history
    from refusal.sae.quality.measure import measure_quality

    options = study.options
    keys = {key.label(study.sae_seed): key for key in study.saes}
    with publish(study.quality, _card(study, saes={name: study.sae(key).name for name, key in keys.items()})) as folder:
        found = measure_quality(
            load_model(study),
            ActivationStore(study.store),
            {name: key.site for name, key in keys.items()},
            lambda name: _load(study, keys[name]),
            {name: read_history(study.sae(key) / HISTORY)["heldout"] for name, key in keys.items()},
            recipe=collection_recipe(study),
            kinds=options.sampler.kinds,
            max_prompts=options.quality.max_prompts,
            responses=options.quality.responses,
            token_budget=options.collect.token_budget,
            seed=study.seed,
        )
        write_json(folder / "quality.json", {"model": study.name, "fingerprint": study.quality.name, **found})
    say("quality", "built", study.quality)


def check_pretrained(study: Study, keys: Sequence[SaeKey]) -> None:
    """Find out before anything is collected whether autoencoders that are there already can be used.

    Raises:
        InputError: One cannot be read, or is of another site or width.
    """
    from refusal.sae.exchange.adopt import read_for

    sae = study.options.sae
    assert isinstance(sae, PretrainedSae)
    for key in keys:
        read_for(study.pretrained(key.site), sae.format, key.site, study.shape[1])


def adopt(study: Study, key: SaeKey) -> None:
    """Take an autoencoder that is there already."""
    from refusal.activations.store import ActivationStore
    from refusal.sae.exchange.adopt import adopt

    sae, folder = study.options.sae, study.sae(key)
    assert isinstance(sae, PretrainedSae)
    made_from = {"content": study.content, "fingerprint": folder.name.rsplit("-", 1)[-1]}
    with publish(folder, _card(study, **made_from)) as temporary:
        adopt(
            ActivationStore(study.store),
            key.site,
            temporary,
            path=study.pretrained(key.site),
            kind=sae.format,
            model=study.name,
            kinds=study.kinds,
            cfg=made_from,
        )
    say("sae", "built", folder)


def discover(study: Study) -> None:
    """Find the circuits, and compare them."""
    from refusal.activations.store import ActivationStore
    from refusal.circuits.describe import write_features
    from refusal.comparison.discover import Settings, discover

    options = study.options.circuits
    attribute = partial(locate(options.target), **options.arguments())
    settings = Settings(
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
    )
    names = {str(site): study.sae(study.read_with(site)).name for site in study.sites}
    parts = study.parts if options.separate_safe_toxic else []
    of_sides = {
        side: {str(site): study.sae(study.read_with(site, part)).name for site in study.sites}
        for part in parts
        for side in part.splits
    }
    source = {"source": str(study.source), "is_folder": isinstance(study.source, Path), "revision": study.revision}
    with publish(study.circuits, _card(study, saes=names, side_saes=of_sides, model=source)) as folder:
        chat, store = load_model(study), ActivationStore(study.store)
        load = cache(lambda key: _load(study, key).to(chat.device))
        saes = {site: load(study.read_with(site)) for site in study.sites}
        discover(
            chat,
            store,
            saes,
            folder,
            model=study.name,
            data=study.options.data.name,
            fingerprint=study.circuits.name,
            settings=settings,
            attribute=attribute,
            side_saes=[
                (part.splits, {site: load(study.read_with(site, part)) for site in study.sites}) for part in parts
            ],
        )
        write_features(folder, chat, store, saes)
    say("circuits", "built", study.circuits)


def draw(study: Study) -> None:
    """Draw the named heatmaps; those of another study make way."""
    from refusal.report.heatmaps import draw_heatmaps

    comparison = read_json(study.circuits / f"{clean_name(study.name)}_comparison.json")
    with publish(study.visualizations, _card(study, circuits=study.circuits.name)) as folder:
        draw_heatmaps(comparison, folder)


def report(study: Study) -> None:
    """Write this study's report."""
    from refusal.report.build import build

    saes, texts = [study.sae(study.read_with(site)) for site in study.sites], study.options.report.texts
    with publish(study.study_report, _card(study, quality=measured(study), texts=texts)) as folder:
        write_json(folder / "verdict.json", read_json(study.circuits / "verdict.json"))
        build(
            folder,
            study.circuits,
            data_analysis=study.data_analysis,
            saes=saes,
            quality=study.quality if measured(study) else None,
            store=study.store,
            command=_command(),
            texts=texts,
        )


def measured(study: Study) -> str | None:
    """Return the name of the measurement of the study's autoencoders that there is, if there is one."""
    return study.quality.name if study.has(study.quality) else None


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
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def load_model(study: Study) -> ChatModel:
    """Load the model; write it first, if it is a planted one that is not there yet."""
    from refusal.models.chat import load_chat_model

    if study.plan is not None and isinstance(study.source, Path):
        have(study.source, partial(study.has, study.source), partial(_plant, study, study.source))
    model = study.options.model
    return load_chat_model(
        study.source,
        name=study.name,
        revision=study.revision,
        dtype=model.dtype,
        device=device_of(study),
        device_map=model.device_map,
        attn_implementation=model.attn_implementation,
        padding_side=model.padding_side,
        system_prompt=model.system_prompt,
        chat_template=study.chat_template,
        thinking=model.thinking,
    )


def load_without_weights(study: Study) -> ChatModel:
    """Load what encodes the prompts as the model would."""
    from refusal.models.weightless import load_weightless

    return load_weightless(
        study.source,
        name=study.name,
        revision=study.revision,
        system_prompt=study.options.model.system_prompt,
        chat_template=study.chat_template,
        thinking=study.options.model.thinking,
    )


def device_of(study: Study) -> str:
    """Return where the model runs; the parts of a collection take the GPUs of a machine by turns."""
    model = study.options.model
    if study.portion is None or model.device != "auto" or model.device_map is not None:
        return model.device
    import torch

    n_gpus = torch.cuda.device_count()
    return f"cuda:{study.portion.gpu(n_gpus)}" if n_gpus else "auto"


def _plant(study: Study, folder: Path) -> None:
    from refusal.models.planted import write_planted

    assert study.plan is not None
    with publish(folder, {"plan": asdict(study.plan)}) as temporary:
        write_planted(temporary, study.vocabulary, study.plan)
    say("model", "built", folder)


def _load(study: Study, key: SaeKey) -> SparseAutoencoder:
    """Load an autoencoder, and check that it was trained on these very activations."""
    from refusal.sae.files import CONFIG, load_sae

    folder = study.sae(key)
    sae = load_sae(folder, model=study.name, site=key.site)
    if read_json(folder / CONFIG).get("content") != study.content:
        raise InputError(
            f"the autoencoder in {folder} was trained on other activations of {study.name}; delete the folder, "
            "or train again with force=true"
        )
    return sae


def _logger(study: Study, name: str) -> Any:
    """Return the logger of the curves of a training of this name: the W&B run that is open, files, or none."""
    kind = study.options.logger.kind
    if kind == "wandb" and "wandb" in sys.modules and sys.modules["wandb"].run is not None:
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(experiment=sys.modules["wandb"].run)
    if kind in ("csv", "tensorboard"):
        loggers = import_module("pytorch_lightning.loggers")
        make = loggers.CSVLogger if kind == "csv" else loggers.TensorBoardLogger
        try:
            return make(save_dir=study.folder / "logs", name="saes", version=name)
        except ModuleNotFoundError as error:
            raise InputError("logger=tensorboard needs a package of that name: pip install tensorboard") from error
    return None
