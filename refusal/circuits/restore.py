"""A finished study, made ready to run again from its files: model, prompts, and what its circuits were read with.

The model is loaded as the study's own configuration says, which the card of its circuits holds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refusal import InputError
from refusal.activations.store import ActivationStore
from refusal.circuits.experiment import Experiment
from refusal.circuits.finished import Finished
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.files import read_template
from refusal.models.sites import parse_site
from refusal.sae.files import load_sae

if TYPE_CHECKING:
    import pandas as pd

AS_CONFIGURED = ("dtype", "device", "device_map", "attn_implementation", "padding_side", "system_prompt", "thinking")
"""Options of the model that are arguments of ``load_chat_model``."""


@dataclass(frozen=True)
class Restored:
    """What a study ran with."""

    study: Finished
    chat: ChatModel
    store: ActivationStore

    @cached_property
    def table(self) -> pd.DataFrame:
        """The prompts outside calibration, with their labels, of the categories that there are circuits of."""
        table = self.store.prompts()
        trained = table["category"][table["fold"] == "train"]
        usable = self.store.evidence() & np.isin(table["fold"], ("train", "heldout"))
        return table[usable & np.isin(table["category"], trained)]

    @property
    def phrases(self) -> Sequence[str]:
        """Openings by which a response counts as a refusal."""
        return self.store.manifest["phrases"]

    def experiment(self, prompts: pd.DataFrame, sites: Collection[str]) -> Experiment:
        """Return prompts, a part of the table or others of its columns, as they are attributed at some of the sites."""
        options, encode = self.study.card["config"]["circuits"], self.chat.encode
        return Experiment(
            chat=self.chat,
            encoded=[encode(text, self.store.max_prompt_tokens) for text in prompts["text"]],
            categories=prompts["category"].tolist(),
            refused=prompts["refused"].to_numpy(dtype=bool),
            saes={
                parse_site(site): load_sae(folder, site=site).to(self.chat.device)
                for site, folder in self.study.saes.items()
                if site in sites
            },
            refusal_tokens=self.store.refusal_tokens,
            positions=options["positions"],
            baseline=options["baseline"],
            gradients=False,
        )


def restore(study: Finished) -> Restored:
    """Load a study's model and open its activations.

    Raises:
        InputError: The model, the activations or an autoencoder is not where the study left it.
    """
    missing = set(study.card.get("saes") or {}) - set(study.saes)
    if missing:
        raise InputError(f"the autoencoder of {min(missing)} is not in {study.home / 'saes'}; run discover.py again")
    if study.store is None:
        raise InputError(f"the study's activations are not in {study.home / 'activations'}; run discover.py again")
    return Restored(study, load_model(study), ActivationStore(study.store))


def load_model(study: Finished) -> ChatModel:
    """Load a study's model.

    Raises:
        InputError: The card does not say where the model is, or it is there no more.
    """
    said = study.card.get("model")
    if said is None:
        raise InputError(f"{study.circuits} does not say where its model is; rebuild it with force=true")
    options, own = study.card["config"]["model"], study.home / "model" / Path(said["source"]).name
    folder = own if own.is_dir() else Path(said["source"])  # a planted model moves with its study
    template = options["chat_template"]
    return load_chat_model(
        folder if said["is_folder"] else said["source"],
        name=study.home.name,
        revision=said["revision"],
        chat_template=None if template is None else read_template(Path(template).expanduser()),
        **{name: options[name] for name in AS_CONFIGURED},
    )
