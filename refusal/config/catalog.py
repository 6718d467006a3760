"""What can be configured, read from the schemas and the YAML files: groups, their choices, options and defaults.

It needs no Hydra, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from refusal.config.schemas import SCHEMAS, Options
from refusal.models.sites import is_site_name

SITES = "layers"
"""The group whose choices are also all names of sites."""

VARIES = "???"
"""In place of a default that each choice sets for itself, or that must be given."""


@dataclass(frozen=True)
class Known:
    """An option: what it means, its default, and which choices of its group have it (empty: all of them)."""

    text: str
    default: Any
    only_with: tuple[str, ...] = ()
    is_mapping: bool = False


class Catalog:
    """The configuration folder ``conf``."""

    def __init__(self, conf: Path) -> None:
        self.conf = Path(conf)

    @cached_property
    def groups(self) -> dict[str, dict[str, str]]:
        """Group -> choice -> what it is: the first line of comment in its file."""
        folders = sorted(folder for folder in self.conf.iterdir() if folder.is_dir() and folder.name != "hydra")
        return {folder.name: {path.stem: _comment(path) for path in _choices(folder)} for folder in folders}

    def defaults(self, command: str) -> dict[str, str | None]:
        """Return the choice that the command takes in each group, in the order of the flow of data."""
        chosen: dict[str, str | None] = {}
        for name in ("study", command):
            for entry in _load(self.conf / f"{name}.yaml").get("defaults", []):
                if isinstance(entry, Mapping):
                    chosen.update({key.split()[-1]: value for key, value in entry.items()})
        return {group: choice for group, choice in chosen.items() if group in self.groups}

    def is_choice(self, group: str, name: str) -> bool:
        """Whether ``group=name`` is valid."""
        return name in self.groups[group] or (group == SITES and is_site_name(name))

    def targets(self, group: str) -> list[str]:
        """Return the import paths that the choices of a group name."""
        found = (self._values(group, choice).get("target") for choice in self.groups[group])
        return sorted({target for target in found if target is not None})

    def options(self, command: str) -> dict[str, Known]:
        """Return all options of the command by their dotted names, with their defaults."""
        study = {**_load(self.conf / "study.yaml"), **_load(self.conf / f"{command}.yaml")}
        known: dict[str, Known] = {}
        for name, schema in get_type_hints(Options).items():
            if name in self.groups:
                known.update(self._group_options(name, schema, self.defaults(command)[name]))
            elif is_dataclass(schema):
                known.update({f"{name}.{own}": option for own, option in _described(schema, study[name]).items()})
            elif name != "command":
                known[name] = _described(Options, study)[name]
        return known

    def _group_options(self, group: str, schema: type, default: str | None) -> dict[str, Known]:
        """The options of a group's choices, each with the choices that have it."""
        choices = sorted(self.groups[group], key=lambda choice: choice != default)  # the default first
        having: dict[str, list[str]] = {}
        found: dict[str, Known] = {}
        for choice in choices:
            own = SCHEMAS.get(group, {}).get(self._schema(group, choice) or "", schema)
            for field, option in _described(own, self._values(group, choice)).items():
                name = f"{group}.{field}"
                having.setdefault(name, []).append(choice)
                first = found.setdefault(name, option)
                if first.default != option.default and default not in having[name]:
                    found[name] = replace(option, default=VARIES)
        return {
            name: option if len(having[name]) == len(choices) else replace(option, only_with=tuple(having[name]))
            for name, option in found.items()
        }

    def _values(self, group: str, choice: str) -> dict[str, Any]:
        """The values of a choice, with those of the files that it builds on."""
        content = _load(self.conf / group / f"{choice}.yaml")
        values: dict[str, Any] = {}
        for base in content.get("defaults", []):
            if isinstance(base, str) and not base.startswith("/"):
                values.update(self._values(group, base))
        return {**values, **content}

    def _schema(self, group: str, choice: str) -> str | None:
        """The name in ``SCHEMAS`` of a choice's class."""
        for base in _load(self.conf / group / f"{choice}.yaml").get("defaults", []):
            if not isinstance(base, str):
                continue
            if base.startswith(f"/schema/{group}/"):
                return base.removeprefix(f"/schema/{group}/").removesuffix("@_here_")
            if found := self._schema(group, base):
                return found
        return None


def _described(schema: Any, values: Mapping[str, Any]) -> dict[str, Known]:
    hints = get_type_hints(schema)
    return {
        field.name: Known(field.metadata["text"], values.get(field.name), (), "dict" in str(hints[field.name]))
        for field in fields(schema)
        if field.metadata
    }


def _choices(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.yaml") if not path.stem.startswith("_"))


def _comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")), "")


@cache
def _load(path: Path) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    return yaml.load(path.read_text(encoding="utf-8"), loader) or {}
