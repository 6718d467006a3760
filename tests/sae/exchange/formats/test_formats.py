"""Any folder of an autoencoder is read by its files alone; a folder is written whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal import InputError
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.formats import Origin, find, format_of, formats, read, read_sae, writable, write_sae
from refusal.sae.files import save_sae
from tests.sae.exchange.formats import test_gemma_scope, test_llama_scope

ORIGIN = Origin("tiny", "mlp_3")


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    made = TopK(4, 12, 2, seed=1)
    made.fit_units(torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) + 5)
    return made.eval().requires_grad_(False)


def test_every_file_of_the_folder_is_a_format():
    only_read = {"gemma_scope", "gemma_scope_2", "llama_scope"}
    assert writable() == ["dictionary_learning", "refusal", "sae_lens", "sparsify"]
    assert set(formats()) == only_read | set(writable())


@pytest.mark.parametrize("name", ["dictionary_learning", "refusal", "sae_lens", "sparsify"])
def test_a_format_is_told_by_its_files(tmp_path: Path, sae: SparseAutoencoder, name: str):
    write_sae(tmp_path / "out", sae, ORIGIN, name)
    assert format_of(tmp_path / "out").name == name
    assert read(tmp_path / "out").origin == ORIGIN
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) + 5
    for path in (tmp_path / "out", next((tmp_path / "out").iterdir())):  # the folder, or a file in it
        torch.testing.assert_close(read_sae(path).encode(x), sae.encode(x))
    assert type(read_sae(tmp_path / "out", format=name)) is TopK


def test_a_folder_without_one_is_told_what_would_be(tmp_path: Path, sae: SparseAutoencoder):
    with pytest.raises(InputError, match=r"there is no .*/nothing"):
        read_sae(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no autoencoder; its files would be, by format, .*sparsify: sae\.safe"):
        read_sae(tmp_path)
    for name in ("layers.3", "layers.7"):
        write_sae(tmp_path / name, sae, ORIGIN, "sparsify")
    with pytest.raises(InputError, match=r"is not an autoencoder, but holds some: name one of layers\.3, layers\.7"):
        read_sae(tmp_path)
    with pytest.raises(InputError, match="there is no format 'saelens'; the formats are dictionary_learning, "):
        read_sae(tmp_path / "layers.3", format="saelens")
    with pytest.raises(InputError, match=r"there is no .*sae_weights\.safetensors|cfg\.json lacks"):
        read_sae(tmp_path / "layers.3", format="sae_lens")


def test_nothing_is_overwritten_and_nothing_half_written(
    tmp_path: Path, sae: SparseAutoencoder, monkeypatch: pytest.MonkeyPatch
):
    write_sae(tmp_path / "out", sae, ORIGIN, "sae_lens")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="out exists already"):
        write_sae(tmp_path / "out", sae, ORIGIN, "sparsify")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*: Not a directory"):
        write_sae(tmp_path / "file" / "out", sae, ORIGIN, "sae_lens")
    with pytest.raises(InputError, match=r"do not say which model and site .*: give --model NAME, --site SITE"):
        write_sae(tmp_path / "other", sae, Origin(), "refusal")  # the weights could be written, what they are of not
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_format_that_is_only_read_is_not_written(tmp_path: Path, sae: SparseAutoencoder):
    with pytest.raises(InputError, match="gemma_scope files are only read; those that are written are dictionary_lear"):
        write_sae(tmp_path / "out", sae, ORIGIN, "gemma_scope")


@pytest.mark.parametrize("name", ["dictionary_learning", "sae_lens", "sparsify"])
def test_damaged_files_are_one_line_that_names_them(tmp_path: Path, sae: SparseAutoencoder, name: str):
    weights, config = find(name).files

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:100])

    damages: list[tuple[str, Callable[[Path], object]]] = [
        (weights, cut),
        (weights, lambda path: path.write_bytes(b"")),
        (weights, Path.unlink),
        (config, lambda path: path.write_text("{")),
        (config, lambda path: path.write_text("[]")),
        (config, lambda path: path.write_text("{}")),
        (config, Path.unlink),
    ]
    for number, (file, damage) in enumerate(damages):
        folder = tmp_path / str(number)
        write_sae(folder, sae, ORIGIN, name)
        damage(folder / file)
        with pytest.raises(InputError, match=file) as error:
            read_sae(folder, format=name)
        assert "\n" not in str(error.value)


def damage(path: Path, places: list[tuple[float, int]], cut: float) -> None:
    """Cut a file to a share of its length, and put other bytes at shares of it."""
    content = bytearray(path.read_bytes())
    content = content[: max(1, round(cut * len(content)))]
    for share, byte in places:
        content[int(share * (len(content) - 1))] = byte
    path.write_bytes(content)


@given(
    name=st.sampled_from(sorted(formats())),
    which=st.integers(0, 1),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=150)
def test_however_a_file_is_damaged_it_is_read_or_refused_in_one_line(
    name: str, which: int, places: list[tuple[float, int]], cut: float
):
    with tempfile.TemporaryDirectory() as temporary:
        folder = made(name, Path(temporary) / "sae")
        files = find(name).files
        damage(folder / files[which % len(files)], places, cut)
        said = ""
        try:
            read_sae(folder, format=name)
        except InputError as error:
            said = str(error)
        assert "\n" not in said


def made(name: str, folder: Path) -> Path:
    """A folder of a format: written here, or made by hand where it cannot be."""
    by_hand = {
        "gemma_scope": test_gemma_scope.published,
        "gemma_scope_2": test_gemma_scope.second,
        "llama_scope": test_llama_scope.published,
    }
    if name in by_hand:
        return by_hand[name](folder)
    write_sae(folder, TopK(4, 12, 2), ORIGIN, name)
    return folder


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    bad = TopK(4, 12, 2)
    bad.b_enc.data[3] = torch.nan
    for name in ("dictionary_learning", "sae_lens", "sparsify"):
        write_sae(tmp_path / name, bad, ORIGIN, name)
        with pytest.raises(InputError, match=r"b_enc|encoder\.bias has values that are not finite"):
            read_sae(tmp_path / name)


def test_ours_are_read_with_their_scale(tmp_path: Path, sae: SparseAutoencoder):
    save_sae(tmp_path, sae, model="tiny", site="mlp_3", cfg={})
    assert float(read_sae(tmp_path).scale) == float(sae.scale) != 1
