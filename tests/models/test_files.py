from __future__ import annotations

import json
import os
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from huggingface_hub import errors

from refusal import InputError
from refusal.models import files
from refusal.models.files import config_path, file_hashes, hub_in_one_line, read_template, shape_of


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 3, "hidden_size": 64},
        {"n_layer": 3, "n_embd": 64},
        {"text_config": {"num_hidden_layers": 3, "hidden_size": 64}, "hidden_size": 9},  # as of a model that also sees
    ],
)
def test_a_configuration_tells_the_shape(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(config_path(tmp_path)) == (3, 64)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no model in .*: a model folder has a config\.json"):
        config_path(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    with pytest.raises(InputError, match="does not say how deep"):
        shape_of(config_path(tmp_path))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.GatedRepoError, "org/model is gated: accept its licence"),
        (errors.RepositoryNotFoundError, "there is no model org/model on the hub"),
        (errors.RevisionNotFoundError, "there is no config.json of org/model at v9 on the hub"),
        (errors.RemoteEntryNotFoundError, "there is no config.json of org/model at v9 on the hub"),
        (errors.LocalEntryNotFoundError, "org/model at v9 is not in the cache, and the hub cannot be reached"),
        (errors.HFValidationError, "there is no model org/model on the hub"),
    ],
)
def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch, error: type[Exception], expected: str) -> None:
    def refuse(*args: object, **options: object) -> None:
        is_http = issubclass(error, errors.HfHubHTTPError)
        raise error("no\nno", response=MagicMock()) if is_http else error("no\nno")  # type: ignore[call-arg]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(InputError) as caught:
        config_path("org/model", "v9")
    assert str(caught.value).startswith(expected)


def test_what_transformers_makes_of_it() -> None:
    refused = errors.GatedRepoError("no", response=MagicMock())
    with pytest.raises(InputError, match=r"^org/model is gated: .* `hf auth login`$"), hub_in_one_line("org/model"):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access") from refused
    with pytest.raises(InputError, match=r"^cannot load the model org/model: no file \("), hub_in_one_line("org/model"):
        raise OSError("\nno file\nin it")


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), (b"\xff", "it is not text")])
def test_a_template_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "mine.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^cannot read model.chat_template=.*mine\.jinja: {reason}"):
        read_template(path)


def test_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    file_hash = files.file_hash

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return file_hash(path)

    monkeypatch.setattr(files, "file_hash", counted)
    memory, model = tmp_path / "memory.json", tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (model / name).write_text(name)
    before = file_hashes(model, memory)
    assert before == {name: file_hash(model / name) for name in ("config.json", "model.safetensors")}
    assert file_hashes(model, memory) == before
    assert hashed == ["config.json", "model.safetensors"]
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert file_hashes(model, memory) == before
    (model / "model.safetensors").write_text("other")
    assert file_hashes(model, memory)["model.safetensors"] != before["model.safetensors"]
    assert hashed == ["config.json", *["model.safetensors"] * 3]
