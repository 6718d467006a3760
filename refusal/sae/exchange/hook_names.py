"""What other libraries call our sites: a pattern for each kind of site, with ``{}`` for the block."""

from __future__ import annotations

import re
from collections.abc import Mapping

from refusal.models.sites import Site, parse_site

TRANSFORMER_LENS = {
    "attention": "blocks.{}.hook_attn_out",
    "mlp": "blocks.{}.hook_mlp_out",
    "residuals": "blocks.{}.hook_resid_post",
}


def name_of(site: Site | str, patterns: Mapping[str, str]) -> str:
    """Return what a library calls a site."""
    site = parse_site(str(site))
    return patterns[site.kind].format(site.layer)


def site_of(name: str | None, patterns: Mapping[str, str]) -> str | None:
    """Return our name of what a library calls a site; None if it is none of ours."""
    for kind, pattern in patterns.items():
        before, after = map(re.escape, pattern.split("{}"))
        if name and (match := re.fullmatch(rf"{before}(\d+){after}", name)):
            return f"{kind}_{int(match[1])}"
    return None
