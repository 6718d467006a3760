"""From Hydra's configuration tree to the plain ``Options`` that everything else takes, checked."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf, open_dict

from refusal import InputError
from refusal.config.schemas import SCHEMAS, Options
from refusal.config.sites_source import SitesSearchPath, SitesSource
from refusal.config.suggest import did_you_mean


def register() -> None:
    """Make the schemas, and the names of sites as choices of ``layers``, known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="options", node=Options)
    for group, classes in SCHEMAS.items():
        for name, schema in classes.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
    for plugin in (SitesSource, SitesSearchPath):
        Plugins.instance().register(plugin)


def from_config(config: DictConfig) -> Options:
    """Return the options of a composed configuration (its ``hydra`` node is left out).

    Raises:
        InputError: An option has no value, or one that it cannot take.
    """
    tree = deepcopy(config)
    with open_dict(tree):
        tree.pop("hydra", None)
    missing = sorted(OmegaConf.missing_keys(tree))
    if missing:
        name = missing[0]
        raise InputError(f"{name} is missing: give {name}=... ({_text(tree, name)})")
    options = cast(Options, OmegaConf.to_object(tree))
    for name, value, metadata in _walk(options):
        _check(name, value, metadata)
    return options


def _text(tree: DictConfig, name: str) -> str:
    group, _, own = name.rpartition(".")
    schema = OmegaConf.get_type(tree, group) if group else Options
    return next(field.metadata["text"] for field in fields(cast(Any, schema)) if field.name == own)


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, value, metadata) of every option."""
    for field in fields(node):
        value = getattr(node, field.name)
        if is_dataclass(value):
            yield from _walk(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field.metadata


def _check(name: str, value: Any, metadata: Any) -> None:
    if value is None:
        return
    choices, low, high = metadata["choices"], metadata["low"], metadata["high"]
    for item in value if isinstance(value, list) else [value]:
        if choices and item not in choices:
            raise InputError(f"{name} has no value '{item}': {did_you_mean(str(item), choices)}")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InputError(f"{name}={value} must be {bounds} ({metadata['text']})")
