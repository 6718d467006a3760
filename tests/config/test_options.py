from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from refusal import InputError
from refusal.config.catalog import Catalog
from refusal.config.options import from_config, register
from refusal.config.schemas import KSparseSae, Options, WeightedSampler
from tests.commands import ROOT

COMMANDS = ("collect", "train", "discover")
CATALOG = Catalog(ROOT / "conf")
CHOICES = [(group, choice) for group, choices in CATALOG.groups.items() for choice in choices]
GIVEN = {  # what a choice cannot do without
    **{("data", choice): ["data.path=somewhere"] for choice in ("csv", "harmbench", "xstest")},
    ("model", "local"): ["model.path=somewhere"],
    ("sae", "pretrained"): ["sae.path=somewhere"],
}


def composed(*overrides: str, command: str = "discover") -> Options:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return from_config(compose(command, overrides=list(overrides)))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_with_every_option_typed(group: str, choice: str) -> None:
    if group == "launcher" and choice != "basic":  # an extra: pip install -e '.[launchers]'
        pytest.importorskip(f"hydra_plugins.hydra_{choice.partition('_')[0]}_launcher")
    assert isinstance(composed(f"{group}={choice}", *GIVEN.get((group, choice), [])), Options)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_defaults(command: str) -> None:
    options = composed(command=command)
    assert options.command == command
    follows = {options.callbacks.discovery, options.callbacks.heatmaps, options.callbacks.report}
    assert follows == {command == "discover"}


TARGETED = [pair for pair in CHOICES if pair[0] in ("sae", "sampler", "circuits") and pair != ("sae", "pretrained")]


@pytest.mark.parametrize(("group", "choice"), TARGETED)
def test_every_target_is_there(group: str, choice: str) -> None:
    module = getattr(composed(f"{group}={choice}"), group).target.rpartition(".")[0]
    assert find_spec(module) is not None


def test_every_choice_says_what_it_is_and_every_option_what_it_means() -> None:
    for group, choice in CHOICES:
        assert CATALOG.groups[group][choice].endswith("."), (group, choice)
    for command in COMMANDS:
        for name, option in CATALOG.options(command).items():
            assert option.text.endswith("."), name
            assert "\n" not in option.text


def test_the_catalogue_names_exactly_the_options_that_are_composed() -> None:
    options = composed()
    chosen = set(_values(options)) - {"command"}
    of_these_choices = {
        name
        for name, option in CATALOG.options("discover").items()
        if not option.only_with or CATALOG.defaults("discover")[name.partition(".")[0]] in option.only_with
    }
    assert chosen == of_these_choices


def test_defaults_of_the_catalogue_are_those_that_are_composed() -> None:
    values = _values(composed())
    for name, option in CATALOG.options("discover").items():
        value = values.get(name)
        if isinstance(value, float):
            assert float(option.default) == value, name
        elif name in values:
            assert str(option.default) == str(value), name


def test_no_two_choices_of_a_group_say_the_same() -> None:
    for group in CATALOG.groups:
        contents = [path.read_text() for path in (ROOT / "conf" / group).glob("*.yaml")]
        assert len(set(contents)) == len(contents), group


def test_experiments() -> None:
    balanced = composed("experiment=orbench_balanced")
    assert (balanced.data.name, balanced.data.equalise) == ("orbench", True)
    assert balanced.sampler.target.endswith("category_balanced.weights")
    assert composed("experiment=orbench_separate_circuits").circuits.separate_safe_toxic
    assert composed("experiment=orbench_full").data.max_per_category is None


def test_the_command_line_has_the_last_word_over_an_experiment() -> None:
    options = composed("experiment=orbench_balanced", "sampler=weighted", "data.equalise=false")
    assert isinstance(options.sampler, WeightedSampler)
    assert not options.data.equalise


def test_a_choice_has_options_of_its_own() -> None:
    # sampler=weighted takes a share of toxic rows; its arguments are what its function is called with.
    assert composed("sampler.toxic_fraction=0.2").sampler.arguments() == {"toxic_fraction": 0.2, "category_weights": {}}
    assert composed("sampler=uniform").sampler.arguments() == {}
    assert composed("data=xstest", "data.path=f").data.arguments() == {"path": "f"}
    assert composed("circuits=ig", "circuits.steps=4").circuits.arguments() == {"steps": 4}
    assert set(composed("sae.k=3").sae.arguments()) == {field.name for field in fields(KSparseSae)} - {
        field.name
        for field in fields(KSparseSae.__mro__[1])  # type: ignore[arg-type]
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.modularity=1.5", r"model.modularity=1.5 must be between 0 and 1"),
        ("sae.batch_size=0", r"sae.batch_size=0 must be at least 1"),
        ("circuits.positions=lst", r"circuits.positions has no value 'lst': did you mean last\? valid: last, template"),
        ("layers.types=[mlp,atention]", r"has no value 'atention': did you mean attention\?"),
        ("model=local", r"model.path is missing: give model.path=... \(Folder of the model"),
    ],
)
def test_values_are_checked(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        composed(override)


def test_the_configuration_folder_has_no_stray_file() -> None:
    folders = {path.name for path in Path(ROOT / "conf").iterdir() if path.is_dir()}
    assert folders == {*CATALOG.groups, "hydra"}


def _values(node: object, prefix: str = "") -> dict[str, object]:
    values: dict[str, object] = {}
    for field in fields(node):  # type: ignore[arg-type]
        value = getattr(node, field.name)
        values.update(_values(value, f"{field.name}.") if is_dataclass(value) else {prefix + field.name: value})
    return values
