"""One line for every mistake on the command line, naming what would be right.

Overrides are looked at before Hydra composes anything; what only composition can find (an option of another choice,
a value of the wrong type) is translated from Hydra's errors.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from refusal import InputError
from refusal.config.catalog import SITES, Catalog, Known
from refusal.config.suggest import did_you_mean

OPTIONAL = ("experiment", "arm")  # groups of which no choice may be taken
_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line as Hydra will; flags may also stand between overrides.

    Raises:
        InputError: A flag is unknown or lacks its value.
    """
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown is None:
            raise InputError(message)
        if "=" in unknown[1]:
            raise InputError(f"options are written without dashes: {unknown[1].lstrip('-')}")
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise InputError(f"there is no flag {unknown[1]}: {did_you_mean(unknown[1], flags)}")

    parser.error = error  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(arguments))


def checked_overrides(overrides: Sequence[str], catalog: Catalog, command: str, *, multirun: bool) -> list[str]:
    """Check the names of groups, choices and options; return the overrides as Hydra wants them.

    Raises:
        InputError: One of them does not exist or cannot be had here, or several values are given to a single run.
    """
    if "launcher=submitit_slurm" in overrides and shutil.which("srun") is None:
        raise InputError(
            "launcher=submitit_slurm needs a Slurm cluster, and there is no srun here; "
            "launcher=submitit_local runs the jobs on this machine"
        )
    options = catalog.options(command)
    multirun = multirun or any(text.startswith("hydra.mode=") for text in overrides)
    return [_checked(text, catalog, options, multirun=multirun) for text in overrides]


def _checked(text: str, catalog: Catalog, options: dict[str, Known], *, multirun: bool) -> str:
    override = _parse(text)
    key = override.key_or_group
    if key.startswith("hydra"):
        return text
    if override.is_sweep_override() and not multirun:
        raise InputError(f"{text} has several values: add -m to run each of them")
    if override.is_delete():
        raise InputError(f"{text}: nothing can be taken away; set an option to null")
    if key in catalog.groups:
        _check_choices(override, catalog)
        return text
    if any(option.is_mapping and f"{key}.".startswith(f"{name}.") for name, option in options.items()):
        return f"++{text.lstrip('+')}"  # its keys are the user's, which Hydra would take for mistakes
    if key not in options and not any(name.startswith(f"{key}.") for name in options):
        known = [*options, *catalog.groups]
        raise InputError(f"there is no option or group '{key}': {did_you_mean(key, known)}")
    return text


def _parse(text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise InputError(f"'{text}' is not an option: write name=value (--help lists them)")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        name, _, value = text.partition("=")
        raise InputError(f"{text} cannot be read: put the value into quotes, '{name}=\"{value}\"'") from None


def _check_choices(override: Override, catalog: Catalog) -> None:
    group = override.key_or_group
    value = override.value()
    if isinstance(value, list):
        example = " (sites: layers.names=[residuals_1,mlp_1])" if group == SITES else ""
        raise InputError(f"{override.input_line}: a group takes one choice, not a list{example}")
    names = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else [str(value)]
    for name in names:
        if catalog.is_choice(group, name) or (group in OPTIONAL and value is None):
            continue
        sites = " or a site such as residuals_10, mlp_3-5, attention_all" if group == SITES else ""
        choices = [*catalog.groups[group], *_sites_like(name)] if group == SITES else catalog.groups[group]
        raise InputError(f"{group} has no choice '{name}': {did_you_mean(name, choices)}{sites}")


def _sites_like(name: str) -> list[str]:
    """The names of sites with the number of a mistyped one."""
    kind, _, number = name.rpartition("_")
    return [f"{known}_{number}" for known in ("residuals", "mlp", "attention")] if kind and number[:1].isdigit() else []


def explain(error: Exception, catalog: Catalog, command: str) -> str:
    """Return what Hydra's error says, in one line."""
    options = catalog.options(command)
    message, cause = str(error), str(error.__cause__ or error)
    refused = re.search(r"Could not override '([^']+)'", message)
    if refused and refused[1] in options and options[refused[1]].only_with:
        group = refused[1].partition(".")[0]
        return f"{refused[1]} is an option of {group}={f' or {group}='.join(options[refused[1]].only_with)} only"
    key = re.search(r"full_key: (\S+)", cause)
    if key and key[1] in options:
        return f"{key[1]}{_wrong_type(cause)} ({options[key[1]].text})"
    if launcher := re.search(r"Could not find 'hydra/launcher/(\w+)'", message):
        return f"launcher={launcher[1]} is not installed: pip install -e '.[launchers]'"
    lines = [line.strip() for line in f"{message}\n{cause}".splitlines()]
    return " ".join(dict.fromkeys(line for line in lines if line))


def _wrong_type(cause: str) -> str:
    """What OmegaConf says of a value, as the end of a sentence that begins with the option's name."""
    if wrong := re.search(r"Value '(.*)' of type .* could not be converted to (\w+)", cause):
        return f"={wrong[1]} is not {_KINDS.get(wrong[2], wrong[2])}"
    if wrong := re.search(r"Value '(.*)' is not a valid bool", cause):
        return f"={wrong[1]} is not true or false"
    if "is not a ListConfig" in cause:
        return " takes a list, such as [a,b]"
    if "is not Optional" in cause:
        return " cannot be null"
    return f": {cause.splitlines()[0]}"
