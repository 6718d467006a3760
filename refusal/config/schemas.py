"""Every option of the three commands: its type, what it means in one line, and what values it can take.

The YAML files in ``conf/`` are the only place of defaults. A group whose choices have options of their own has a
class for each: ``WeightedSampler`` is a ``Sampler`` with ``toxic_fraction``, and no other sampler takes one.
"""

# ruff: noqa: RUF009  (option() makes a dataclass field)

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from refusal.sae.sizes import n_active, n_auxiliary


def option(text: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None) -> Any:
    """Return the dataclass field of an option without default.

    Args:
        text: What it means, in one line; ``--help`` prints it.
        choices: The values it can take, where they can be listed.
        low: The least value of a number.
        high: The greatest value of a number.
    """
    return field(metadata={"text": text, "choices": choices, "low": low, "high": high})


class Choice:
    """A group, one of whose choices is taken."""

    def arguments(self) -> dict[str, Any]:
        """Return the options that this choice has and its group at large has not: arguments of what it stands for."""
        group = next(base for base in type(self).__mro__ if Choice in base.__bases__)
        common = {option.name for option in fields(group)} if isinstance(self, group) else set()  # type: ignore[arg-type]
        return {own.name: getattr(self, own.name) for own in fields(self) if own.name not in common}  # type: ignore[arg-type]


@dataclass
class Data(Choice):
    """Which prompts are shown to the model."""

    target: str = option("Function that reads or makes the prompts.")
    name: str = option("Name of the prompts in results.")
    max_per_category: int | None = option(
        "At most this many prompts of a category in a split, drawn by the seed; null: all.", low=2
    )
    categories: list[str] | None = option("Only these categories; null: all.")
    focus: list[str] | None = option("Categories kept whole, whatever max_per_category: [hate,privacy]; null: none.")
    equalise: bool = option("Whether every category has the same number of prompts in a split.")
    augment: list[str] = option(
        "More training rows from reworded prompts: [paraphrase,politeness,case,punctuation], one each a prompt."
    )


@dataclass
class PlantedData(Data):
    """Made-up prompts for the planted models."""

    n_safe: int = option("Harmless prompts a category.", low=2)
    n_hard: int = option("Harmless prompts a category that look harmful.", low=2)
    n_toxic: int = option("Harmful prompts a category.", low=2)


@dataclass
class OrBenchData(Data):
    """The three CSV files of OR-Bench."""

    dir: str | None = option("Folder with or-bench-80k.csv, or-bench-hard-1k.csv and or-bench-toxic.csv.")
    download: bool = option("Whether to get the three files from the Hugging Face hub instead.")
    revision: str | None = option("Branch, tag or commit of the files to download; null: the newest.")

    def arguments(self) -> dict[str, Any]:
        """Return them, with the categories that are asked for: those may be other than OR-Bench's ten."""
        return {**super().arguments(), "also": self.categories or []}


@dataclass
class FileData(Data):
    """One published file."""

    path: str = option("The published file (data=xstest, data=harmbench), or your own (data=csv).")


@dataclass
class HarmBenchData(FileData):
    """A file of HarmBench's behaviours."""

    kinds: list[str] = option("Functional categories that are read.", choices=("standard", "contextual", "copyright"))


@dataclass
class TableData(FileData):
    """A table of anyone's prompts."""

    columns: dict[str, str] = option("Names of the table's columns: data.columns.prompt=text data.columns.split=label.")
    category: str | None = option("One category for the whole file; null: as its column says.")
    split: str | None = option(
        "One split for the whole file; null: as its column says.", choices=("safe", "hard", "toxic")
    )
    split_values: dict[Any, str] = option("What the split's column means: {unsafe: toxic, benign: safe}.")


@dataclass
class Model(Choice):
    """Which chat model is studied."""

    name: str | None = option("Name of the model's folder in results; null: from the choice or its path.")
    dtype: str = option("Number type of the weights.", choices=("auto", "float32", "bfloat16", "float16"))
    device: str = option("Where the model runs: auto, cpu, cuda, cuda:1, mps.")
    device_map: str | None = option(
        "How accelerate spreads the model over several devices; null: all of it on device.",
        choices=("auto", "balanced", "sequential"),
    )
    attn_implementation: str | None = option("Attention of transformers, such as eager or sdpa; null: its choice.")
    padding_side: str = option("Where the prompts of a batch are padded.", choices=("left", "right"))
    system_prompt: str | None = option("System message before every prompt; null: none.")
    chat_template: str | None = option("File with a Jinja chat template; null: the tokenizer's own.")
    thinking: bool = option("Whether the model may think before it answers, where its template can switch that off.")
    refusal_tokens: list[int] | None = option("Ids of the tokens that open refusals; null: learnt from the responses.")
    refused_by: str = option(
        "What counts as refused: the phrases that open a response, a positive refusal score, or both together.",
        choices=("phrases", "score", "both"),
    )
    refusal_phrases: list[str] | None = option("Openings that make a response a refusal; null: the usual ones.")
    extra_refusal_phrases: list[str] = option("Openings that count besides those.")
    response_tokens: int = option("Greatest length of a response, in tokens; 0: none, and no verdict.", low=0)


@dataclass
class LocalModel(Model):
    """A folder of the form that transformers saves."""

    path: str = option("Folder of the model (model=local), or its name on the Hugging Face hub.")


@dataclass
class HubModel(Model):
    """A model of the Hugging Face hub."""

    path: str = option("Folder of the model (model=local), or its name on the Hugging Face hub.")
    revision: str | None = option("Branch, tag or commit on the hub; null: the newest.")


@dataclass
class PlantedModel(Model):
    """A Llama whose weights are written, so that its mechanism of refusal is known."""

    modularity: float = option("0: one mechanism for all categories; 1: one for each.", low=0, high=1)
    n_layers: int = option("Number of blocks.", low=3)
    decision_layer: int = option("Block that decides to refuse.", low=2)
    groups: list[list[str]] | None = option("Categories that share a mechanism, [[a,b],[c]]; null: each its own.")
    decoy: float = option("Length of a direction by category that is active and does nothing.", low=0)
    noise: float = option("Length of what the other blocks write.", low=0)
    d_model: int = option("Width of the residual stream.", low=1)
    spread: float = option("The categories' own parts differ: from modularity - spread to + spread.", low=0, high=0.5)
    superposition: float = option("Share of its dimensions that evidence of categories does without.", low=0, high=0.5)
    writers: int = option("Number of blocks that write the refusal.", low=1)
    joint: bool = option("Whether detection and decision are in one block.")
    chatter: float = option("Length of what the deciding block also writes, at random from prompt to prompt.", low=0)
    early_chatter: float = option("The same of the block before it, which detects.", low=0)


@dataclass
class Layers:
    """Which places of the model are read."""

    preset: str = option(
        "every block's three sites; all, the middle 12 or 7 sparse blocks; auto: every up to 8 blocks, else middle.",
        choices=("auto", "every", "sparse", "middle", "all"),
    )
    names: list[str] = option("Sites and ranges instead of a preset: [residuals_10,mlp_3-5,attention_all].")
    types: list[str] | None = option(
        "Kinds of site in a preset; null: residuals (every: all three).", choices=("residuals", "mlp", "attention")
    )


@dataclass
class Collect:
    """How activations are stored."""

    max_rows: int = option("At most this many rows a site; past it, a seeded sample of each prompt's.", low=1)
    positions: list[str] = option(
        "Prompt tokens to keep: the last ones of prompt and instruction, all of instruction, template or prompt.",
        choices=("last", "last_instruction", "instruction", "template", "prompt"),
    )
    response_positions: int = option("Keep the first so many tokens of each response, too.", low=0)
    writes: bool = option("Whether to keep what each component adds at the last position; the verdict needs it.")
    too_long: str = option(
        "A prompt over the model's context: cut the end of its instruction, or refuse it.",
        choices=("truncate", "refuse"),
    )
    token_budget: int = option("Padded tokens of a batch of prompts; halved when memory runs out.", low=1)
    store_dtype: str = option("Number type on disk.", choices=("float32", "bfloat16"))
    compression: str | None = option(
        "Compression on disk, lzf (fast) or gzip (small); null: none.", choices=("lzf", "gzip")
    )


@dataclass
class Sae(Choice):
    """The sparse autoencoder at each site."""

    name: str = option("Name of its folders in results.")


@dataclass
class PretrainedSae(Sae):
    """One that is there already."""

    path: str = option("Its folder or file, with {site} or {layer} in the place of those: 'saes/{site}'.")
    format: str | None = option("Format of its files, such as sae_lens; null: as they look.")


@dataclass
class TrainedSae(Sae, Choice):
    """One that is trained."""

    target: str = option("Class of the autoencoder.")
    hidden_dim: int | None = option("Number of features; null: expansion_factor times the model's width.", low=1)
    expansion_factor: int = option("Features for each dimension of the model, where hidden_dim is null.", low=1)
    lr: float | None = option("Learning rate; null: 5e-3, of more than 2,048 features less by their root.", low=0)
    batch_size: int = option("Rows of a training step.", low=1)
    epochs: float = option("Passes over the stored rows.", low=0)
    max_rows: int = option("At most this many rows of a site are seen in all; the parts of a scope share them.", low=1)
    lr_warmup: float = option("Share of the steps in which the learning rate rises from 0.", low=0, high=1)
    lr_decay: float = option("Share of the steps in which it falls to 0 at the end.", low=0, high=1)
    dead_after_rows: int = option("A feature is dead that was inactive for this many rows.", low=1)
    seed: int | None = option("Seed of its first weights; null: the seed of the study.", low=0)
    also_seeds: list[int] = option("More autoencoders from other first weights, on the same rows: [1,2].")
    scope: str = option(
        "What has autoencoders of its own: nothing, the safe and the toxic side, or each category.",
        choices=("shared", "safe_toxic", "category"),
    )
    at_once: int | None = option("Autoencoders trained side by side; null: as many as fit in 2 GB.", low=1)

    def sized(self, d_model: int, hidden_dim: int) -> dict[str, Any]:
        """Return the arguments of the class, those resolved that depend on its size."""
        return self.arguments()


@dataclass
class KSparseSae(TrainedSae):
    """As many features are active as ``k`` says."""

    k: int | None = option("Active features of a row; null: k_percent, or 1/32 of the width within 8 and 64.", low=1)
    k_percent: float | None = option("Active features in percent of hidden_dim, instead of k.", low=0, high=100)
    aux_k: int | None = option(
        "Dead features that help with the error; null: half the model's width, at most 512.", low=1
    )
    aux_coefficient: float = option("Weight of that help in the loss.", low=0)

    def sized(self, d_model: int, hidden_dim: int) -> dict[str, Any]:
        """Return them with k in place of k_percent, and aux_k.

        Raises:
            InputError: More features are to be active than there are.
        """
        own = self.arguments()
        k = n_active(hidden_dim, d_model, k=own.pop("k"), k_percent=own.pop("k_percent"))
        return {**own, "k": k, "aux_k": n_auxiliary(d_model, self.aux_k)}


@dataclass
class MatryoshkaSae(KSparseSae):
    """The first features reconstruct by themselves."""

    prefixes: list[float] = option("Shares of the features that must reconstruct by themselves, ascending to 1.")


@dataclass
class L1Sae(TrainedSae):
    """The sum of the codes is kept small."""

    l1_coefficient: float = option("Weight of the sum of the codes in the loss.", low=0)
    warmup: float = option("Share of the training in which that weight rises from 0.", low=0, high=1)


@dataclass
class JumpReLUSae(TrainedSae):
    """The number of active features is kept small."""

    l0_coefficient: float = option("Weight of the number of active features in the loss.", low=0)
    warmup: float = option("Share of the training in which that weight rises from 0.", low=0, high=1)
    bandwidth: float = option("Width around a threshold in which pre-codes move it, in rows of variance 1.")
    threshold: float = option("First threshold of all features, in rows of variance 1.")


@dataclass
class OtherSae(TrainedSae):
    """Your own class, whose arguments need no class here."""

    options: dict[str, Any] = option("Arguments of your class: {strength: 2}.")

    def arguments(self) -> dict[str, Any]:
        """Return what stands under ``options``."""
        return dict(self.options)


@dataclass
class Quality:
    """How autoencoders are judged."""

    max_prompts: int = option(
        "At most this many held-out prompts are run with each autoencoder in its site's place; 0: none are.", low=0
    )
    responses: int = option("How many of them are answered, too, for the rates of refusal.", low=0)


@dataclass
class Sampler(Choice):
    """How often a training row comes from harmful and harmless prompts."""

    target: str = option("Function that weighs the strata.")
    last_fraction: float = option("Share of rows from the last prompt position, which decides.", low=0, high=1)
    kinds: list[str] = option(
        "Kinds of tokens that the other rows come from.",
        choices=("prefix", "special", "instruction", "template", "response"),
    )


@dataclass
class WeightedSampler(Sampler):
    """A stated share of harmful prompts."""

    toxic_fraction: float = option("Share of rows from toxic prompts.", low=0, high=1)
    category_weights: dict[str, float] = option("How much oftener a category's rows come than others: {hate:2}.")


@dataclass
class Circuits(Choice):
    """How features are attributed, chosen, joined and compared."""

    target: str = option("Function that attributes the refusal score to features.")
    node_threshold: float = option("Least share of the site's strongest feature that makes a node.", low=0, high=1)
    edge_threshold: float = option("Least share of the sites' strongest edge that makes an edge.", low=0, high=1)
    top_n_per_layer: int | None = option("At most this many nodes a site; null: no limit.", low=1)
    separate_safe_toxic: bool = option("Whether safe, hard (refused) and toxic prompts get circuits of their own.")
    positions: str = option(
        "Token positions: the last, or all of the template after the instruction.", choices=("last", "template")
    )
    baseline: str = option(
        "Level a feature is compared with: mean of complied prompts, or 0.", choices=("mean", "zero")
    )
    min_per_category: int = option("Refused and complied prompts that a category needs to have a vote.", low=2)
    permutations: int = option("Permutations of a test.", low=1)
    bootstrap: int = option("Bootstrap samples of an interval.", low=2)


@dataclass
class IgCircuits(Circuits):
    """Integrated gradients."""

    steps: int = option("Points at which the gradient is taken.", low=1)


@dataclass
class ExactCircuits(Circuits):
    """Every feature patched."""

    candidates: int = option("Features patched at each site, those that atp ranks highest.", low=1)


@dataclass
class Callbacks:
    """What follows the training of the autoencoders."""

    discovery: bool = option("Whether circuits are found and compared.")
    heatmaps: bool = option("Whether similarity heatmaps are drawn.")
    report: bool = option("Whether the report is written.")


@dataclass
class Report:
    """What the report holds."""

    texts: bool = option("Whether prompts and responses are in it.")


@dataclass
class Sweep:
    """How the jobs of a multirun are compared."""

    target: str = option("Function that makes their table and picture.")


@dataclass
class Trainer:
    """Where and how autoencoders train: arguments of Lightning's Trainer."""

    accelerator: str = option("cpu, gpu, mps, or auto.")
    devices: str = option("Number of devices, or auto.")
    precision: str = option("Number type of training, such as 32-true or bf16-mixed.")
    strategy: str = option("How devices share the work, as Lightning names it; auto: one device, ddp_spawn: several.")
    num_nodes: int = option("Number of machines.", low=1)
    gradient_clip_val: float | None = option("Greatest norm of an autoencoder's gradient; null: any.", low=0)
    accumulate_grad_batches: int = option("Batches whose gradients make up one step.", low=1)
    checkpoint_minutes: float = option(
        "How often a training is saved, to go on from there when it was killed; at most 2 % of its time.", low=0
    )
    enable_progress_bar: bool = option("Whether a terminal shows how far a training is.")


@dataclass
class Logger(Choice):
    """Where training curves and results are logged."""

    kind: str = option("Kind of logger.", choices=("wandb", "csv", "tensorboard", "none"))


@dataclass
class WandbLogger(Logger):
    """Weights & Biases."""

    mode: str = option("offline: into files, no account needed; online: to the server.", choices=("offline", "online"))
    project: str = option("Project of the runs.")
    texts: bool = option("Whether prompts and responses are logged, too.")


@dataclass
class Options:
    """Everything that a command is given."""

    data: Data
    model: Model
    layers: Layers
    collect: Collect
    sae: Sae
    sampler: Sampler
    quality: Quality
    circuits: Circuits
    callbacks: Callbacks
    report: Report
    trainer: Trainer
    logger: Logger
    sweep: Sweep
    command: str = option("Set by each command.", choices=("collect", "train", "discover"))
    seed: int = option("What every random choice follows from.", low=0)
    output_dir: str = option("Folder of all results.")
    force: bool = option("Whether results are built again although they are there.")
    plan: bool = option("Whether to print what would be done, and stop.")
    shard: str | None = option("This process's part of a collection that several share, such as 3/16; null: all of it.")
    train_saes: bool = option("Whether missing autoencoders are trained; false: use what is there, or fail.")


SCHEMAS: dict[str, dict[str, type]] = {
    "data": {
        "planted": PlantedData,
        "orbench": OrBenchData,
        "file": FileData,
        "harmbench": HarmBenchData,
        "table": TableData,
        "other": Data,
    },
    "model": {"planted": PlantedModel, "local": LocalModel, "hub": HubModel},
    "sae": {
        "k_sparse": KSparseSae,
        "matryoshka": MatryoshkaSae,
        "l1": L1Sae,
        "jumprelu": JumpReLUSae,
        "other": OtherSae,
        "pretrained": PretrainedSae,
    },
    "sampler": {"weighted": WeightedSampler, "other": Sampler},
    "circuits": {"ig": IgCircuits, "exact": ExactCircuits, "other": Circuits},
    "logger": {"wandb": WandbLogger, "other": Logger},
}
"""The classes of each group whose choices have options of their own; a choice names one in its ``defaults``."""
