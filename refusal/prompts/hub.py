"""Files of a data set of the Hugging Face hub: in a folder, in a copy of the hub's cache, or downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refusal import InputError


def find(folder: Path, names: Sequence[str]) -> Path:
    """Return the folder that holds the files: this one, or a snapshot in it.

    Args:
        folder: A folder with the files, one of the hub's cache (``datasets--OWNER--NAME``), or its ``snapshots``.
        names: The files.

    Raises:
        InputError: There is no such folder, or it has several snapshots and does not say which is the newest.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; it has to hold {', '.join(names)}")
    home = folder if folder.name == "snapshots" else folder / "snapshots"
    if not home.is_dir():
        return folder
    snapshots = sorted(path for path in home.iterdir() if any((path / name).is_file() for name in names))
    newest = home.parent / "refs" / "main"
    if newest.is_file() and (named := home / newest.read_text().strip()) in snapshots:
        return named
    if len(snapshots) > 1:
        raise InputError(f"{home} holds {', '.join(path.name for path in snapshots)}: give the path of one of them")
    return snapshots[0] if snapshots else folder


def download(repo: str, names: Sequence[str], revision: str | None) -> Path:
    """Download files of a data set into the hub's cache, unless they are there, and return their folder.

    Args:
        repo: ``OWNER/NAME`` on the hub.
        names: The files.
        revision: Branch, tag or commit; None: the newest.

    Raises:
        InputError: They cannot be had; says what to do.
    """
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it says ten lines of its retries; ours says what to do
    what = f"{repo} at {revision}" if revision else repo
    try:
        paths = [Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision)) for name in names]
    except errors.GatedRepoError as error:
        raise InputError(f"{repo} is gated: accept its terms on its hub page, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"there is no data set {repo} on the hub (or it is private: `hf auth login`)") from error
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise InputError(f"{what} on the hub lacks one of {', '.join(names)}, or there is no such revision") from error
    except OSError as error:
        raise InputError(
            f"{what} is not in the hub's cache, and the hub cannot be reached; data.dir=DIR reads a folder"
        ) from error
    return paths[0].parent
