"""What a model's files tell without loading it, and without torch: its depth and width, and what names its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from refusal import InputError
from refusal.artifacts import file_hash, read_json, write_json

CONFIG = "config.json"
SUFFIXES = (".json", ".jinja", ".safetensors", ".bin", ".model", ".txt")  # of files that change what a model does


def config_path(source: Path | str, revision: str | None = None) -> Path:
    """Return the path of a model's ``config.json``, downloaded first if the model is one of the hub.

    Args:
        source: A folder (a ``Path``) or a name on the hub (a ``str``).
        revision: Branch, tag or commit on the hub. The path found there ends in ``<commit>/config.json``.

    Raises:
        InputError: There is no such model, or it cannot be had.
    """
    if isinstance(source, Path):
        if not (source / CONFIG).is_file():
            raise InputError(f"there is no model in {source}: a model folder has a {CONFIG} (model.path=DIR)")
        return source / CONFIG
    from huggingface_hub import hf_hub_download

    with hub_in_one_line(source, revision):
        return Path(hf_hub_download(source, CONFIG, revision=revision))


@contextmanager
def hub_in_one_line(source: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the hub, transformers and safetensors raise of a model that cannot be had into a line of advice."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(_advice(error, source, revision)) from error


def _advice(error: BaseException, source: str, revision: str | None) -> str:
    from huggingface_hub import errors

    what = f"{source} at {revision}" if revision else source
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:  # transformers wraps the hub's errors into its own
        causes.append(cause)
    advice: list[tuple[tuple[type[Exception], ...], str]] = [
        ((errors.GatedRepoError,), f"{source} is gated: accept its licence on its hub page, then `hf auth login`"),
        (
            (errors.RepositoryNotFoundError, errors.HFValidationError),
            f"there is no model {source} on the hub (or it is private: `hf auth login`)",
        ),
        (
            (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError),
            f"there is no {CONFIG} of {what} on the hub: no such revision, or not a model",
        ),
        (
            (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, ConnectionError),
            f"{what} is not in the cache, and the hub cannot be reached; model=local model.path=DIR loads a folder",
        ),
    ]
    for classes, line in advice:
        if any(isinstance(cause, classes) for cause in causes):
            return line
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"cannot load the model {source}: {said.strip()} (model=local model.path=DIR loads a folder)"


def read_template(path: Path) -> str:
    """Return the text of a chat template.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InputError(
            f"cannot read model.chat_template={path}: {said}; it names a file with a Jinja template"
        ) from error


def shape_of(config: Path) -> tuple[int, int]:
    """Return (n_layers, d_model) as a model's configuration says.

    Raises:
        InputError: It does not say.
    """
    content = read_json(config)
    content = content.get("text_config", content)
    layers = content.get("num_hidden_layers", content.get("n_layer"))
    width = content.get("hidden_size", content.get("n_embd"))
    if not (isinstance(layers, int) and isinstance(width, int)):
        raise InputError(f"{config} does not say how deep (num_hidden_layers) and wide (hidden_size) the model is")
    return layers, width


def file_hashes(folder: Path, memory: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, str]:
    """Return the hash of each of a model's files by name.

    Args:
        folder: The model.
        memory: A JSON file with hashes found before; files of the same path, size and time are not read again.
        suffixes: Of the files that count.

    Raises:
        InputError: A file cannot be read, or the memory not written.
    """
    known = read_json(memory) if memory.is_file() else {}
    seen = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in suffixes and path.is_file():
            state = path.stat()
            key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
            seen[path.name] = (key, known.get(key) or file_hash(path))
    remembered = {**known, **dict(seen.values())}
    if remembered != known:
        write_json(memory, remembered)
    return {name: digest for name, (_, digest) in seen.items()}
