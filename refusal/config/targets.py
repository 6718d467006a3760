"""What options name by import path, such as ``sae.target``: a mistake in one is found before anything is built."""

from __future__ import annotations

from refusal import InputError
from refusal.config.catalog import Catalog
from refusal.config.schemas import Options
from refusal.config.suggest import nearest
from refusal.study import locate


def check_targets(options: Options, catalog: Catalog) -> None:
    """Find what the options name, unless a choice names it: importing that as well would take a second.

    Raises:
        InputError: There is no such thing.
    """
    for group in catalog.groups:
        target = getattr(getattr(options, group, None), "target", None)
        known = catalog.targets(group)
        if target is None or target in known:
            continue
        try:
            locate(target)
        except InputError as error:
            raise InputError(f"{group}.target: {error}; one is {[*nearest(target, known), *known][0]}") from error
