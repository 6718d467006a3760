"""Sites as choices of the group ``layers``: ``layers=residuals_10``, ``layers=mlp_3-5``, ``layers=attention_all``.

Hydra asks every source on its search path for a configuration by name; this one answers for every name of a site or
of a range of sites, so that overrides and sweeps over them work without a file for each.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from refusal.models.sites import KINDS, is_site_name

GROUP = "layers"


class SitesSource(ConfigSource):
    """Answers for ``layers/<site>``."""

    @staticmethod
    def scheme() -> str:
        """Return what its addresses begin with."""
        return "sites"

    def available(self) -> bool:
        """Return whether it can be used, which it always can."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Return whether this is the group, or the root that it lies in."""
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        """Return whether this is a site or a range of sites."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return group == GROUP and is_site_name(name)

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the choice of that one site or range."""
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        name = config_path.removesuffix(".yaml").rpartition("/")[2]
        return ConfigResult(
            config=OmegaConf.create({"preset": "auto", "names": [name], "types": None}),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header={"package": None},
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return what can be listed: the names that are valid on every model."""
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG else [GROUP]
        return [] if results_filter == ObjectType.GROUP else sorted(f"{kind}_all" for kind in KINDS)


class SitesSearchPath(SearchPathPlugin):
    """Puts the source on the search path of every command."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append it."""
        search_path.append(provider="sites", path=f"{SitesSource.scheme()}://{GROUP}")
