from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from refusal import InputError
from refusal.activations.shard import dataset
from refusal.activations.space import MARGIN, reserve, writing

VALUES = np.arange(300_000, dtype=np.float32)


def write(path: Path) -> None:
    with writing(path) as file:
        reserve(file, VALUES.nbytes)
        file["values"] = VALUES


@contextmanager
def files_up_to(n_bytes: int) -> Iterator[None]:
    """Files that this process writes cannot grow beyond this: what a full disk is to them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_set_aside_and_not_needed_is_given_back(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["values"] = VALUES
    a, plain = ((tmp_path / name).stat() for name in ("a.h5", "plain.h5"))
    assert a.st_size == plain.st_size
    assert a.st_blocks * 512 < a.st_size + MARGIN / 2


@pytest.mark.parametrize("room", [1000, MARGIN + 1000, MARGIN + VALUES.nbytes])
def test_no_room_is_one_line_before_anything_is_written(tmp_path: Path, room: int) -> None:
    with files_up_to(room), pytest.raises(InputError, match=r"cannot write in .*: File too large$"):
        write(tmp_path / "a.h5")
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(dataset(file, "values")[()], VALUES)


def test_a_file_that_is_there_stays_whole_where_it_cannot_be_changed(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").stat().st_size
    with files_up_to(before), pytest.raises(InputError, match="File too large"), writing(tmp_path / "a.h5", "r+"):
        pytest.fail("it was opened")
    with writing(tmp_path / "a.h5", "r+") as file:
        np.testing.assert_array_equal(dataset(file, "values")[()], VALUES)
        file.attrs["changed"] = True
    assert (tmp_path / "a.h5").stat().st_size <= before + 4096
