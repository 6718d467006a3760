"""What one study is: its model, its prompts, its sites, and the folders in which its results stand.

Everything here is known without running a model, and without importing torch: a stage whose result is there must be
found in a moment. A fingerprint covers what changes a result's content (never paths, batch sizes of inference,
devices or threads).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.artifacts import clean_name, file_hash, fingerprint, read_json, write_json
from refusal.config.schemas import FolderData, HubModel, LocalModel, Options, PlantedData, PlantedModel
from refusal.models.planted_plan import Plan
from refusal.models.sites import Site, choose
from refusal.prompts.mini import mini_folder
from refusal.prompts.orbench import read_orbench
from refusal.prompts.planted import Vocabulary, make_vocabulary, planted_prompts
from refusal.prompts.prompt import CATEGORIES, Prompt
from refusal.prompts.select import cap, equalise, keep_categories, with_folds

SCHEMA_VERSION = 1
MIN_K, MAX_K, MAX_AUX_K = 8, 64, 512


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
    def store(self) -> Path:
        """Where the activations stand: a finished store that has all the sites, or else the one to be made."""
        wanted = {str(site) for site in self.sites}
        home = self.folder / "activations"
        for manifest in sorted(home.glob("*/manifest.json")):
            card = read_json(manifest)
            if card.get("content") == self.content and wanted <= set(card["sites"]):
                return manifest.parent
        return home / fingerprint({"content": self.content, "sites": sorted(wanted)})

    def sae(self, site: Site) -> Path:
        """Where a site's autoencoder stands."""
        made_from = {"content": self.content, "site": str(site), **self.training}
        return self.folder / "saes" / str(site) / f"{clean_name(self.options.sae.name)}-{fingerprint(made_from)}"

    @cached_property
    def circuits(self) -> Path:
        """Where circuits and comparison stand."""
        saes = [self.sae(site).name for site in self.sites]
        content = {"content": self.content, "saes": saes, "circuits": asdict(self.options.circuits)}
        return self.folder / "circuits" / fingerprint(content)

    # --- the model ---------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        model = self.options.model
        assert isinstance(model, HubModel | LocalModel)
        return model.path

    @property
    def revision(self) -> str | None:
        """Branch, tag or commit of a hub model."""
        return self.options.model.revision if isinstance(self.options.model, HubModel) else None

    @cached_property
    def source(self) -> Path | str:
        """The model's folder, or its name on the hub."""
        if self.plan is not None:
            made_from = {"schema": SCHEMA_VERSION, "plan": asdict(self.plan)}
            return self.folder / "model" / fingerprint(made_from)
        return self._path if isinstance(self.options.model, HubModel) else Path(self._path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of the planted model and prompts."""
        return make_vocabulary(self.seed, self.options.data.categories or CATEGORIES)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(n_layers, d_model) of the model, from its configuration alone.

        Raises:
            InputError: The model cannot be found, or its configuration does not say.
        """
        if self.plan is not None:
            return self.plan.n_layers, self.plan.d_model
        config = read_json(_config_file(self.source, self.revision))
        config = config.get("text_config", config)
        layers = config.get("num_hidden_layers", config.get("n_layer"))
        width = config.get("hidden_size", config.get("n_embd"))
        if not (isinstance(layers, int) and isinstance(width, int)):
            raise InputError(f"{self.source}: its config.json does not say how deep and how wide the model is")
        return layers, width

    @cached_property
    def sites(self) -> list[Site]:
        """The sites that ``layers`` stands for."""
        layers = self.options.layers
        return choose(layers.names, self.shape[0], preset=layers.preset, types=layers.types)

    # --- the prompts -------------------------------------------------------------------------------

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The prompts, drawn and put into folds."""
        data = self.options.data
        if isinstance(data, PlantedData):
            counts = {"n_safe": data.n_safe, "n_hard": data.n_hard, "n_toxic": data.n_toxic}
            prompts = planted_prompts(self.vocabulary, **counts, seed=self.seed)
        else:
            prompts = read_orbench(self._data_dir, categories=(*CATEGORIES, *(data.categories or ())))
        if data.categories:
            prompts = keep_categories(prompts, data.categories)
        prompts = cap(prompts, data.max_per_category, self.seed)
        if data.equalise:
            prompts = equalise(prompts, self.seed)
        return with_folds(prompts, self.seed)

    @property
    def _data_dir(self) -> Path:
        data = self.options.data
        return Path(data.dir) if isinstance(data, FolderData) else mini_folder()

    # --- fingerprints ------------------------------------------------------------------------------

    @cached_property
    def content(self) -> str:
        """Fingerprint of what the activations of a site depend on."""
        model, collect = self.options.model, self.options.collect
        return fingerprint(
            {
                "schema": SCHEMA_VERSION,
                "model": self._model_key(),
                "prompts": fingerprint({prompt.id: prompt.fold for prompt in self.prompts}),
                "dtype": model.dtype,
                "system_prompt": model.system_prompt,
                "refusal_tokens": model.refusal_tokens,
                "refusal_phrases": model.refusal_phrases,
                "response_tokens": model.response_tokens,
                "max_rows": collect.max_rows,
                "writes": collect.writes,
                "store_dtype": collect.store_dtype,
                "seed": self.seed,
            }
        )

    def _model_key(self) -> Mapping[str, Any]:
        if self.plan is not None:
            return {"plan": asdict(self.plan)}
        if isinstance(self.source, Path):
            return {"files": _hashes(self.source, self.folder / "file_hashes.json")}
        return {"hub": self.source, "revision": self.revision}

    @cached_property
    def training(self) -> dict[str, Any]:
        """What, besides the activations, an autoencoder follows from: recipe, sampler, precision."""
        sampler = self.options.sampler
        return {
            "recipe": self.recipe,
            "sampler": {"target": sampler.target, "last_fraction": sampler.last_fraction, **sampler.arguments()},
            "trainer": {name: getattr(self.options.trainer, name) for name in ("precision", "gradient_clip_val")},
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """Arguments of ``refusal.sae.base.Recipe``, sizes resolved.

        Raises:
            InputError: More features are to be active than there are.
        """
        sae, width = self.options.sae, self.shape[1]
        own = sae.arguments()
        hidden_dim = sae.hidden_dim or sae.expansion_factor * width
        percent, k = own.pop("k_percent", None), own.pop("k", None)
        if k is None:
            k = max(1, round(hidden_dim * percent / 100)) if percent else min(MAX_K, max(MIN_K, width // 32))
        if k > hidden_dim:
            raise InputError(f"sae.k={k} is more than sae.hidden_dim={hidden_dim}: at most all features are active")
        return {
            "target": sae.target,
            "hidden_dim": hidden_dim,
            "k": k,
            "lr": sae.lr,
            "batch_size": sae.batch_size,
            "epochs": sae.epochs,
            "max_rows": sae.max_rows,
            "seed": self.seed if sae.seed is None else sae.seed,
            **own,
            "aux_k": own["aux_k"] or min(width // 2, MAX_AUX_K),
        }


def _config_file(source: Path | str, revision: str | None) -> Path:
    if isinstance(source, Path):
        if not (source / "config.json").is_file():
            raise InputError(f"there is no model in {source}: a model folder has a config.json (model.path=DIR)")
        return source / "config.json"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(source, "config.json", revision=revision))
    except GatedRepoError as error:
        raise InputError(f"{source} is gated: accept its licence on its hub page, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"there is no model {source} on the hub (or it is private: `hf auth login`)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"{source} is not in the cache, and the hub cannot be reached; model=local model.path=DIR loads a folder"
        ) from error


def _hashes(folder: Path, memory: Path) -> dict[str, str]:
    """Return the hash of each of a model's files; those seen before with this size and time are not read again."""
    known = read_json(memory) if memory.is_file() else {}
    seen = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".safetensors", ".bin", ".model", ".txt") and path.is_file():
            state = path.stat()
            key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
            seen[path.name] = (key, known.get(key) or file_hash(path))
    remembered = {**known, **dict(seen.values())}
    if remembered != known:
        write_json(memory, remembered)
    return {name: digest for name, (_, digest) in seen.items()}
