"""Convert an autoencoder to the files of another library: ``python -m refusal.sae.convert SRC DEST --to FORMAT``.

The reconstructions stay the same; input scaling is folded into the weights (docs/formats.md says what maps to what).

Examples:
    python -m refusal.sae.convert outputs/llama3_8b/saes/residuals_12/topk-0123456789ab sae_lens/12 --to sae_lens
    python -m refusal.sae.convert SAE run/layers.12 --to sparsify
    python -m refusal.sae.convert gemma-scope/layer_20/width_16k/average_l0_71 OUT --to refusal \\
        --model gemma2_2b --site residuals_20
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from refusal.arguments import Parser, command


def convert(
    source: Path,
    folder: Path,
    to: str,
    *,
    from_format: str | None = None,
    model: str | None = None,
    site: str | None = None,
) -> None:
    """Write an autoencoder into a new folder, in another format.

    Args:
        source: Its folder, or a file in it.
        folder: The new folder; must not exist.
        to: The format to write.
        from_format: The format of the source; None: told by its files.
        model: What the new files shall say it was trained on; None: what the source says.
        site: The site likewise.

    Raises:
        InputError: The source cannot be read, the format cannot hold it, or the folder exists.
    """
    from refusal.models.sites import parse_site
    from refusal.sae.exchange.formats import Origin, read, write_sae

    sae, origin = read(source, from_format)
    said = Origin(model or origin.model, str(parse_site(site)) if site else origin.site)
    write_sae(folder, sae, said, to)


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.sae.convert", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of an autoencoder, or a file in it")
    parser.add_argument("folder", type=Path, metavar="DEST", help="the new folder; it must not exist")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="refusal, sae_lens, sparsify, dictionary_learning"
    )
    parser.add_argument("--from", dest="from_format", metavar="FORMAT", help="format of SRC (told by its files)")
    parser.add_argument("--model", help="name of the model it was trained on (what SRC says)")
    parser.add_argument("--site", help="its site, such as residuals_12 (what SRC says)")
    options = parser.parse_args(arguments)
    convert(**vars(options))
    print(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
