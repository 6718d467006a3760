"""Where autoencoders are published: a repository of the Hugging Face hub, or a folder that stands in for one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from refusal import InputError
from refusal.sae.exchange.new_folder import new_folder


class Place(Protocol):
    """Where autoencoders are published."""

    def files(self) -> list[str]:
        """Return the paths of the files in it."""
        ...

    def put(self, folder: Path) -> str:
        """Publish a folder's files; return where they are."""
        ...

    def get(self, files: Sequence[str], into: Path) -> None:
        """Fetch files, by their paths, into a folder."""
        ...


@dataclass(frozen=True)
class Directory:
    """A folder that stands in for the hub."""

    path: Path

    def files(self) -> list[str]:
        """Return the paths of the files in it."""
        if not self.path.is_dir():
            raise InputError(f"there is no folder {self.path}")
        return [str(path.relative_to(self.path)) for path in sorted(self.path.rglob("*")) if path.is_file()]

    def put(self, folder: Path) -> str:
        """Publish a folder's files."""
        with new_folder(self.path) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
        return str(self.path)

    def get(self, files: Sequence[str], into: Path) -> None:
        """Fetch files."""
        for file in files:
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path / file, into / file)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, or a folder in it."""

    name: str
    """OWNER/NAME"""
    folder: str = ""
    revision: str | None = None
    private: bool = False

    def files(self) -> list[str]:
        """Return the paths of the files in the folder."""
        from huggingface_hub import HfApi

        with _hub_errors(self.name):
            found = HfApi().model_info(self.name, revision=self.revision).siblings or []
        paths = [item.rfilename for item in found]
        return [path[len(self._prefix) :] for path in paths if path.startswith(self._prefix)]

    def put(self, folder: Path) -> str:
        """Publish a folder's files in one commit; make the repository if need be."""
        from huggingface_hub import HfApi

        with _hub_errors(self.name):
            HfApi().create_repo(self.name, private=self.private, exist_ok=True)
            HfApi().upload_folder(repo_id=self.name, folder_path=folder, path_in_repo=self.folder or None)
        return f"https://huggingface.co/{self.name}"

    def get(self, files: Sequence[str], into: Path) -> None:
        """Fetch files through the hub's cache."""
        from huggingface_hub import snapshot_download

        wanted = [self._prefix + file for file in files]
        with _hub_errors(self.name):
            home = Path(snapshot_download(self.name, revision=self.revision, allow_patterns=wanted))
        Directory(home / self.folder).get(files, into)

    @property
    def _prefix(self) -> str:
        return f"{self.folder}/" if self.folder else ""


def place_of(text: str, *, revision: str | None = None, private: bool = False) -> Place:
    """Return the place that a REPO names.

    Raises:
        InputError: It names none.
    """
    if text.startswith("file://"):
        return Directory(Path(unquote(urlsplit(text).path)))
    if text.startswith((".", "/", "~")):
        return Directory(Path(text).expanduser())
    owner, _, rest = text.strip("/").partition("/")
    name, _, folder = rest.partition("/")
    words = (owner, name, *filter(None, folder.split("/")))
    if not all(re.fullmatch(r"[\w-][\w.-]*", word) for word in words):
        raise InputError(f"'{text}' is no repository: give OWNER/NAME, OWNER/NAME/FOLDER, or a path such as ./DIR")
    return Repository(f"{owner}/{name}", "/".join(words[2:]), revision, private)


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn what the hub refuses into one line."""
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it says ten lines of its retries; ours says what to do
    unreachable: Any = getattr(errors, "HTTPError", OSError)  # of its HTTP client, since version 1.0
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(f"{repo} is gated: accept its terms on its hub page, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"there is no {repo} on the hub (or it is private: `hf auth login`)") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repo} has no such revision") from error
    except errors.HFValidationError as error:
        raise InputError(f"{repo} is no name of a repository: {_first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        raise InputError(
            f"the hub refuses {repo} ({_first_line(error)}); `hf auth login` with a token that may"
        ) from error
    except (OSError, unreachable) as error:
        raise InputError(f"the hub cannot be reached for {repo}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
