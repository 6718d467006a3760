"""Our own files, ``sae.safetensors`` and ``cfg.json``: see ``refusal.sae.files``."""

from __future__ import annotations

from pathlib import Path

from refusal import InputError
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.foreign import Options
from refusal.sae.exchange.formats import Format, Imported, Origin, our_version
from refusal.sae.files import CONFIG, WEIGHTS, load_sae, save_sae


def read(folder: Path) -> Imported:
    """Read ours."""
    sae, cfg = load_sae(folder), Options.read(folder / CONFIG)
    return Imported(sae, Origin(cfg.text("model"), cfg.text("site")))


def write(folder: Path, sae: SparseAutoencoder, origin: Origin) -> None:
    """Write ours.

    Raises:
        InputError: The model or the site is not known: circuits must not be searched with autoencoders of another.
    """
    if origin.model is None or origin.site is None:
        missing = " and ".join(name for name, value in origin._asdict().items() if value is None)
        raise InputError(f"the files do not say which {missing} the autoencoder is of: give --model NAME, --site SITE")
    save_sae(folder, sae, model=origin.model, site=origin.site, cfg={"converted_by": our_version()})


FORMAT = Format("refusal", (WEIGHTS, CONFIG), read, write, mark=(CONFIG, "d_model"))
