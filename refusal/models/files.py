"""What a model's files tell without loading it, and without torch: its depth and width, and what names its weights."""

from __future__ import annotations

from pathlib import Path

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
    from huggingface_hub import errors, hf_hub_download

    what = f"{source} at {revision}" if revision else source
    try:
        return Path(hf_hub_download(source, CONFIG, revision=revision))
    except errors.GatedRepoError as error:
        raise InputError(f"{source} is gated: accept its licence on its hub page, then `hf auth login`") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(f"there is no model {source} on the hub (or it is private: `hf auth login`)") from error
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise InputError(f"there is no {CONFIG} of {what} on the hub: no such revision, or not a model") from error
    except OSError as error:
        raise InputError(
            f"{what} is not in the cache, and the hub cannot be reached; model=local model.path=DIR loads a folder"
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


def file_hashes(folder: Path, memory: Path) -> dict[str, str]:
    """Return the hash of each of a model's files by name.

    Args:
        folder: The model.
        memory: A JSON file with hashes found before; files of the same path, size and time are not read again.

    Raises:
        InputError: A file cannot be read, or the memory not written.
    """
    known = read_json(memory) if memory.is_file() else {}
    seen = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path.is_file():
            state = path.stat()
            key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
            seen[path.name] = (key, known.get(key) or file_hash(path))
    remembered = {**known, **dict(seen.values())}
    if remembered != known:
        write_json(memory, remembered)
    return {name: digest for name, (_, digest) in seen.items()}
