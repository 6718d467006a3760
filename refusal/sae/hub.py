"""Publish autoencoders on the Hugging Face hub, and fetch them: ``python -m refusal.sae.hub push|pull``.

REPO is OWNER/NAME, or OWNER/NAME/FOLDER for one of several in a repository. A path (./DIR, /DIR, file:///DIR) is a
folder that is used in the same way, without a network. Pickles are neither sent nor fetched. What is pushed gets a
page, README.md, that says what it is and how good it is.

Examples:
    python -m refusal.sae.hub push outputs/llama3_8b/saes/residuals_12/topk-0123456789ab me/saes/residuals_12 --private
    python -m refusal.sae.hub push SAE me/sae --format sae_lens --license apache-2.0
    python -m refusal.sae.hub pull me/saes/residuals_12 SAE
    python -m refusal.sae.hub pull google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71 SAE --revision main
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.artifacts import complete, write_atomic
from refusal.sae.exchange.new_folder import new_folder
from refusal.sae.exchange.places import Directory, Place, place_of

if TYPE_CHECKING:
    from refusal.sae.exchange.formats import Format

PAGE, HISTORY = "README.md", "history.json"


def push(
    folder: Path, place: Place, *, name: str = "refusal", quality: Path | None = None, licence: str | None = None
) -> str:
    """Publish an autoencoder with its page; return where it is.

    Args:
        folder: The autoencoder, of any format.
        place: Where to.
        name: The format to publish it in.
        quality: ``quality.json`` of the study it is from, for the page.
        licence: Short name of a licence, for the page.

    Raises:
        InputError: It cannot be read, written in this format, or published.
    """
    from refusal.sae.exchange.card import model_card
    from refusal.sae.exchange.foreign import Options
    from refusal.sae.exchange.formats import find, folder_of, format_of, read, write_sae

    if find(name).is_pickled:
        raise InputError(f"{name} files are pickles, which are not published; --format sae_lens is read as widely")
    folder = folder_of(folder)
    own, (sae, origin) = format_of(folder), read(folder)
    heldout = Options.read(folder / HISTORY).within("heldout").content if (folder / HISTORY).is_file() else {}
    options = (complete(folder) or {}).get("config", {})
    page = model_card(
        sae,
        origin,
        name,
        data=options.get("data", {}).get("name"),
        heldout=heldout,
        splice=_splice(quality, folder, origin.site) if quality else {},
        licence=licence,
    )
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "sae"
        if own.name == name:  # as they are: ours say more than a conversion could
            Directory(folder).get(own.files, staged)
        else:
            write_sae(staged, sae, origin, name)
        if heldout:
            shutil.copyfile(folder / HISTORY, staged / HISTORY)
        write_atomic(staged / PAGE, page)
        return place.put(staged)


def pull(place: Place, folder: Path) -> None:
    """Fetch an autoencoder into a new folder: its files, its page and its history, and nothing else.

    Args:
        place: Where from.
        folder: The new folder; must not exist.

    Raises:
        InputError: There is none there, it is a pickle or damaged, or the folder exists.
    """
    from refusal.sae.exchange.formats import read

    there = place.files()
    item = _format_among(there)
    wanted = [*item.files, *(file for file in (PAGE, HISTORY) if file in there)]
    with new_folder(folder) as temporary:
        place.get(wanted, temporary)
        read(temporary, item.name if item.mark is None else None)


def _splice(quality: Path, folder: Path, site: str | None) -> dict[str, Any]:
    """Return what a study measured of the model with this autoencoder in place, over all prompts."""
    from refusal.sae.exchange.foreign import Options

    names = (complete(quality.parent) or {}).get("saes", {})
    for name, one in Options.read(quality).within("saes").content.items():
        if names.get(name) == folder.resolve().name and one["site"] == site:
            return one["splice"]["all"]
    raise InputError(f"{quality} does not speak of {folder}; give the quality.json of its own study")


def _format_among(files: Sequence[str]) -> Format:
    """Return the format of which all files are there."""
    from refusal.sae.exchange.formats import formats

    for item in formats().values():
        if all(file in files for file in item.files):
            if item.is_pickled:
                raise InputError(
                    f"{item.files[0]} is a pickle, which is not fetched; fetch it yourself, and convert it"
                )
            return item
    ends = {f"/{item.files[0]}" for item in formats().values()}
    inside = sorted({file.removesuffix(end) for file in files for end in ends if file.endswith(end)})
    if not inside:
        raise InputError("there is no autoencoder in this place: none of its files are those of a known format")
    more = f", and {len(inside) - 5} more" if len(inside) > 5 else ""
    raise InputError(f"there are several autoencoders in this place: name one of {', '.join(inside[:5])}{more}")


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.sae.hub", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("what", choices=("push", "pull"), help="publish or fetch")
    parser.add_argument("source", metavar="FROM", help="push: folder of an autoencoder; pull: REPO")
    parser.add_argument("target", metavar="TO", help="push: REPO; pull: the new folder, which must not exist")
    parser.add_argument("--format", help="push as refusal, sae_lens or sparsify (refusal)")
    parser.add_argument("--quality", metavar="FILE", type=Path, help="push: quality.json of its study, for the page")
    parser.add_argument("--private", action="store_true", default=None, help="a repository that push makes is private")
    parser.add_argument("--license", metavar="NAME", help="licence for the page of what is pushed, such as apache-2.0")
    parser.add_argument("--revision", help="branch, tag or commit to pull (the newest)")
    options = parser.parse_args(arguments)
    for name in ("revision",) if options.what == "push" else ("format", "quality", "private", "license"):
        if getattr(options, name) is not None:
            parser.error(f"--{name} says nothing to {options.what}")
    if options.what == "push":
        place = place_of(options.target, private=bool(options.private))
        how = {"name": options.format or "refusal", "quality": options.quality, "licence": options.license}
        print(push(Path(options.source), place, **how))
    else:
        pull(place_of(options.source, revision=options.revision), Path(options.target))
        print(options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
