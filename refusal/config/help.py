"""The page that ``--help`` prints: what the command does, its groups, its options, and examples."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from refusal.config.catalog import SITES, VARIES, Catalog, Known

COLUMN = 34  # where the texts of options begin


def help_page(command: str, docstring: str, catalog: Catalog) -> str:
    """Return the page.

    Args:
        command: The script's name without ``.py``.
        docstring: The script's: what it does, then ``Examples:`` with a command line each.
        catalog: What can be configured.
    """
    about, _, examples = docstring.strip().partition("\n\nExamples:\n")
    return "\n".join(
        [
            about,
            "",
            "Usage",
            f"  python {command}.py [GROUP=CHOICE ...] [OPTION=VALUE ...]",
            f"  python {command}.py -m OPTION=VALUE,VALUE ...   one run for each combination of values",
            "",
            "Examples",
            textwrap.indent(textwrap.dedent(examples).rstrip(), "  "),
            "",
            "Groups (* is what is taken unless you say otherwise)",
            *_groups(command, catalog),
            "",
            "Options, as they are unless you say otherwise",
            *_options(catalog.options(command)),
            "",
            "More",
            f"  python {command}.py --cfg job ...            print all options as they would be, and stop",
            f"  python {command}.py plan=true ...            print what would be done, and stop",
            f'  eval "$(python {command}.py -sc install=bash)"   completion of names with the tabulator key',
        ]
    )


def _groups(command: str, catalog: Catalog) -> Iterator[str]:
    for group, default in catalog.defaults(command).items():
        choices = sorted(catalog.groups[group], key=lambda choice: choice != default)
        for number, choice in enumerate(choices):
            star = "*" if choice == default else " "
            yield f"  {group if number == 0 else '':<11}{star}{choice:<26} {catalog.groups[group][choice]}"
        if group == SITES:
            yield f"  {'':<12}{'residuals_10, mlp_3-5':<26} Any site, a range, or all of a kind: attention_all."


def _options(options: dict[str, Known]) -> Iterator[str]:
    before = ""
    for name, option in sorted(options.items(), key=lambda item: "." in item[0]):  # those without a group first
        group = name.rpartition(".")[0]
        if group != before:
            yield ""
        before = group
        few = 0 < len(option.only_with) <= 2
        only = f" ({' or '.join(f'{group}={choice}' for choice in option.only_with)})" if few else ""
        yield f"  {f'{name}={_written(option.default)}':<{COLUMN}}  {option.text}{only}"


def _written(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "..." if value == VARIES else str(value)
