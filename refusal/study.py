"""What one study is: its model, its prompts, its sites, and the folders in which its results stand.

Everything here is known without running a model, and without importing torch: a stage whose result is there must be
found in a moment. A fingerprint covers what changes a result's content (never paths, batch sizes of inference,
devices or threads).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.activations.kinds import check_kinds, kept_kinds
from refusal.activations.portion import Portion, parse_portion
from refusal.activations.samplers import Sampler, Stratum
from refusal.artifacts import CARD, clean_name, fingerprint, read_json
from refusal.config.schemas import HubModel, LocalModel, Options, PlantedData, PlantedModel, PretrainedSae, TrainedSae
from refusal.models.files import config_path, file_hashes, read_template, shape_of
from refusal.models.planted_plan import Plan
from refusal.models.sites import Site, choose
from refusal.prompts.augment import augmented
from refusal.prompts.planted import Vocabulary, make_vocabulary
from refusal.prompts.prompt import CATEGORIES, Prompt
from refusal.prompts.select import choose_prompts, with_folds
from refusal.sae.sizes import learning_rate
from refusal.sae.training.scope import READ_WITH, WHOLE, Part, SaeKey, parts

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"  # the card of a store
SAE_FILES = (".json", ".safetensors", ".pt", ".npz")  # in which libraries keep autoencoders
CHANGES_WEIGHTS = ("precision", "gradient_clip_val", "accumulate_grad_batches")  # of the options of the trainer
STARTED = time.time()
"""What is older than this process is built again where ``force`` says so."""


class Study:
    """One study, as its options say."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seed = options.seed
        model = options.model
        self.plan: Plan | None = None
        """What is planted, if the model is a planted one."""
        if isinstance(model, PlantedModel):
            groups = tuple(tuple(group) for group in model.groups) if model.groups else None
            self.plan = Plan(**{**model.arguments(), "groups": groups, "seed": options.seed})

    # --- names and folders -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the model in paths and figures."""
        model = self.options.model
        if model.name:
            return clean_name(model.name)
        if self.plan is not None:
            return "planted" if self.plan.modularity == 0 else f"planted_m{self.plan.modularity:g}"
        return clean_name(Path(self._path).resolve().name)

    @property
    def folder(self) -> Path:
        """Where the model's results stand."""
        return Path(self.options.output_dir) / self.name

    @property
    def data_analysis(self) -> Path:
        """Where the split statistics stand."""
        return self.folder / "data_analysis"

    @property
    def visualizations(self) -> Path:
        """Where the named heatmaps stand."""
        return self.folder / "visualizations" / "similarity_heatmaps"

    @property
    def report(self) -> Path:
        """Where the latest report stands."""
        return self.folder / "report"

    @property
    def study_report(self) -> Path:
        """Where the report of this very study stands, so that no other overwrites it."""
        return self.report / "studies" / self.circuits.name

    @cached_property
    def portion(self) -> Portion | None:
        """This process's part of a collection; None is all of it."""
        return None if self.options.shard is None else parse_portion(self.options.shard)

    @cached_property
    def store(self) -> Path:
        """Where the activations stand: a finished store that has all the sites, or else the one to be made."""
        wanted = {str(site) for site in self.sites}
        home = self.folder / "activations"
        own = home / fingerprint({"content": self.content, "sites": sorted(wanted)})
        if self.options.force or (own / MANIFEST).is_file():
            return own
        for manifest in sorted(home.glob(f"*/{MANIFEST}")):
            card = read_json(manifest)
            if card.get("content") == self.content and wanted <= set(card["sites"]):
                return manifest.parent
        return own

    def sae(self, key: SaeKey) -> Path:
        """Where an autoencoder stands."""
        name, (site, part, seed) = self.options.sae.name, key
        if isinstance(self.options.sae, PretrainedSae):
            path = self.pretrained(site)
            files = file_hashes(path if path.is_dir() else path.parent, self._hashes, SAE_FILES)
            made_with = {"files": files, "kinds": self.kinds}
        else:
            recipe = {**self.recipe, "seed": seed}
            made_with = {"scope": self.scope, "part": part.name, **self.training, "recipe": recipe}
        made_from = {"content": self.content, "site": str(site), **made_with}
        label = clean_name(name if part == WHOLE else f"{name}-{part.name}")
        return self.folder / "saes" / str(site) / f"{label}-{fingerprint(made_from)}"

    def pretrained(self, site: Site) -> Path:
        """Where the autoencoder stands that is taken for a site, with ``sae=pretrained``.

        Raises:
            InputError: Nothing is there, or the path names one for several sites.
        """
        sae = self.options.sae
        assert isinstance(sae, PretrainedSae)
        path = Path(sae.path.replace("{site}", str(site)).replace("{layer}", str(site.layer))).expanduser()
        if len(self.sites) > 1 and str(path) == sae.path:
            raise InputError(f"sae.path={path} is one autoencoder for {len(self.sites)} sites: write {{site}} for each")
        if not path.exists():
            raise InputError(f"there is no autoencoder for {site} in {path} (sae.path)")
        return path

    @cached_property
    def circuits(self) -> Path:
        """Where circuits and comparison stand."""
        saes = [self.sae(key).name for key in self.saes if key.seed == self.sae_seed]
        content = {"content": self.content, "saes": saes, "circuits": asdict(self.options.circuits)}
        return self.folder / "circuits" / fingerprint(content)

    @cached_property
    def quality(self) -> Path:
        """Where it stands how good the autoencoders are."""
        saes = [self.sae(key).name for key in self.saes]
        content = {"content": self.content, "saes": saes, "quality": asdict(self.options.quality), "seed": self.seed}
        return self.folder / "quality" / fingerprint(content)

    # --- what is there ------------------------------------------------------------------------------

    def has(self, folder: Path, card: str = CARD) -> bool:
        """Whether a result is complete, and is not to be built again."""
        path = folder / card
        return path.is_file() and not (self.options.force and path.stat().st_mtime < STARTED)

    def has_store(self) -> bool:
        """Whether the activations are complete, with all their shards, and are not to be collected again."""
        if not self.has(self.store, MANIFEST):
            return False
        shards = read_json(self.store / MANIFEST)["shards"]
        return all((self.store / shard["file"]).is_file() for shard in shards)

    def has_sae(self, key: SaeKey) -> bool:
        """Whether an autoencoder is there; with ``train_saes=false`` none is trained again, even by force."""
        folder = self.sae(key)
        return self.has(folder) or (not self.options.train_saes and (folder / CARD).is_file())

    # --- the model ---------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        model = self.options.model
        assert isinstance(model, HubModel | LocalModel)
        return model.path

    @cached_property
    def source(self) -> Path | str:
        """The model's folder, or its name on the hub."""
        if self.plan is not None:
            return self.folder / "model" / fingerprint({"schema": SCHEMA_VERSION, **self._model_key()})
        return self._path if isinstance(self.options.model, HubModel) else Path(self._path).expanduser()

    @cached_property
    def _config(self) -> Path:
        model = self.options.model
        return config_path(self.source, model.revision if isinstance(model, HubModel) else None)

    @property
    def revision(self) -> str | None:
        """The commit of a hub model, whatever branch or tag was asked for."""
        return self._config.parent.name if isinstance(self.options.model, HubModel) else None

    @cached_property
    def chat_template(self) -> str | None:
        """The template that takes the place of the tokenizer's, if one is given."""
        path = self.options.model.chat_template
        return None if path is None else read_template(Path(path).expanduser())

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of the planted model and prompts."""
        return make_vocabulary(self.seed, self._categories)

    @property
    def _categories(self) -> list[str]:
        return sorted(set(self.options.data.categories or CATEGORIES))

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(n_layers, d_model) of the model, from its configuration alone.

        Raises:
            InputError: The model cannot be found, or its configuration does not say.
        """
        return (self.plan.n_layers, self.plan.d_model) if self.plan is not None else shape_of(self._config)

    @cached_property
    def sites(self) -> list[Site]:
        """The sites that ``layers`` stands for."""
        layers = self.options.layers
        return choose(layers.names, self.shape[0], preset=layers.preset, types=layers.types)

    # --- the prompts -------------------------------------------------------------------------------

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The prompts: drawn, put into folds, and at last augmented, which changes nothing for the originals."""
        data = self.options.data
        read = partial(locate(data.target), **data.arguments())
        chosen = choose_prompts(
            read(self.vocabulary, seed=self.seed) if isinstance(data, PlantedData) else read(),
            categories=data.categories,
            focus=data.focus,
            max_per_category=data.max_per_category,
            equal=data.equalise,
            seed=self.seed,
        )
        return augmented(with_folds(chosen, self.seed), data.augment, self.seed)

    # --- the autoencoders --------------------------------------------------------------------------

    @property
    def scope(self) -> str:
        """What is trained on what."""
        sae = self.options.sae
        return sae.scope if isinstance(sae, TrainedSae) else "shared"

    @property
    def sae_seed(self) -> int:
        """What the first weights of the autoencoders that circuits are read with follow from."""
        sae = self.options.sae
        return sae.seed if isinstance(sae, TrainedSae) and sae.seed is not None else self.seed

    @cached_property
    def parts(self) -> list[Part]:
        """The parts of the prompts that have autoencoders of their own."""
        return parts(self.scope, {prompt.category for prompt in self.prompts})

    @cached_property
    def saes(self) -> list[SaeKey]:
        """All autoencoders of the study, those with the same rows next to each other."""
        sae = self.options.sae
        seeds = dict.fromkeys([self.sae_seed, *(sae.also_seeds if isinstance(sae, TrainedSae) else ())])
        return [SaeKey(site, part, seed) for part in self.parts for site in self.sites for seed in seeds]

    def read_with(self, site: Site, part: Part | None = None) -> SaeKey:
        """Return the autoencoder that circuits at a site are read with; of a part, where sides have circuits."""
        return SaeKey(site, part or READ_WITH[self.scope], self.sae_seed)

    def check_readable(self) -> None:
        """Find out before anything is built whether circuits can be found, and read with the autoencoders.

        Raises:
            InputError: Nothing tells what is refused, or the autoencoders are of too many kinds.
        """
        model, scope = self.options.model, self.scope
        if model.response_tokens == 0 and model.refusal_tokens is None:
            raise InputError(
                "model.response_tokens=0 asks for no responses, and without them nothing tells what is refused"
            )
        if scope not in READ_WITH:
            raise InputError(
                f"sae.scope={scope} is for train.py only: circuits of categories are compared in the features of one "
                f"autoencoder a site; with discover.py use sae.scope={' or '.join(READ_WITH)}"
            )

    def sampler(self, part: Part) -> Sampler:
        """Return how often a row of a part comes from each stratum."""
        sampler = self.options.sampler
        return part.of(partial(locate(sampler.target), **sampler.arguments()))

    def check_sampler(self) -> None:
        """Find out before anything is collected whether every part has prompts to train on.

        Raises:
            InputError: One has none, or the sampler's options do not fit the prompts.
        """
        counts = Counter((prompt.category, prompt.split) for prompt in self.prompts if prompt.fold != "heldout")
        strata = [Stratum(category, split, n) for (category, split), n in sorted(counts.items())]
        for part in dict.fromkeys([WHOLE, *(key.part for key in self.saes)]):
            self.sampler(part)(strata)

    # --- fingerprints ------------------------------------------------------------------------------

    @cached_property
    def content(self) -> str:
        """Fingerprint of what the activations of a site depend on."""
        model, collect = self.options.model, self.options.collect
        return fingerprint(
            {
                "schema": SCHEMA_VERSION,
                "prompts": [[prompt.id, prompt.fold] for prompt in self.prompts],
                "model": self._model_key(),
                "dtype": model.dtype,
                "system_prompt": model.system_prompt,
                "chat_template": self.chat_template,
                "thinking": model.thinking,
                "refusal_tokens": model.refusal_tokens,
                "refused_by": model.refused_by,
                "refusal_phrases": [model.refusal_phrases, *model.extra_refusal_phrases],
                "response_tokens": model.response_tokens,
                "positions": sorted(set(collect.positions)),
                "response_positions": collect.response_positions,
                "max_rows": collect.max_rows,
                "writes": collect.writes,
                "too_long": collect.too_long,
                "store_dtype": collect.store_dtype,
                "seed": self.seed,
            }
        )

    @property
    def _hashes(self) -> Path:
        """Hashes of files that are large to read again."""
        return self.folder / "file_hashes.json"

    def _model_key(self) -> Mapping[str, Any]:
        if self.plan is not None:
            return {"plan": asdict(self.plan), "categories": self._categories}
        if isinstance(self.source, Path):
            return {"files": file_hashes(self.source, self._hashes)}
        return {"hub": self.source, "revision": self.revision}

    @cached_property
    def kinds(self) -> list[str]:
        """Kinds of the rows that autoencoders are trained and measured on, besides the last prompt positions.

        Raises:
            InputError: The collection leaves some of them out.
        """
        kinds, collect = self.options.sampler.kinds, self.options.collect
        check_kinds(kinds, kept_kinds(collect.positions, collect.response_positions))
        return sorted(set(kinds))

    @cached_property
    def training(self) -> dict[str, Any]:
        """What, besides the activations, an autoencoder follows from: recipe, sampler, precision."""
        return {
            "recipe": self.recipe,
            "sampler": {**asdict(self.options.sampler), "kinds": self.kinds},
            "trainer": {name: getattr(self.options.trainer, name) for name in CHANGES_WEIGHTS},
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """Arguments of ``refusal.sae.recipe.Recipe``, sizes resolved.

        Raises:
            InputError: More features are to be active than there are.
        """
        sae, d_model = self.options.sae, self.shape[1]
        assert isinstance(sae, TrainedSae)
        hidden_dim = sae.hidden_dim or sae.expansion_factor * d_model
        return {
            "target": sae.target,
            "hidden_dim": hidden_dim,
            "lr": learning_rate(hidden_dim, sae.lr),
            "batch_size": sae.batch_size,
            "epochs": sae.epochs,
            "max_rows": max(1, sae.max_rows // len(self.parts)),  # so that every scope costs the same
            "seed": self.sae_seed,
            "lr_warmup": sae.lr_warmup,
            "lr_decay": sae.lr_decay,
            "dead_after_rows": sae.dead_after_rows,
            "options": sae.sized(d_model, hidden_dim),
        }


def locate(target: str) -> Any:
    """Return what an import path such as ``refusal.circuits.attribution.atp.attribute`` names.

    Raises:
        InputError: There is no such thing.
    """
    module, _, name = target.rpartition(".")
    if not module or not name:
        raise InputError(f"'{target}' is no import path, such as package.module.name")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no {target} ({error})") from error
