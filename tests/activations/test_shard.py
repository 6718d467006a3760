from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refusal import InputError
from refusal.activations.shard import (
    NUMBER_COLUMNS,
    ROW_COLUMNS,
    TEXT_COLUMNS,
    Shard,
    column,
    dataset,
    is_sound,
    open_shard,
    read_prompts,
    read_sections,
    read_values,
    replace_column,
    write_shard,
)

KINDS = ("prefix", "instruction")


def prompts_of(texts: list[str]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = dict.fromkeys(TEXT_COLUMNS, texts)
    return columns | {name: list(range(len(texts))) for name in NUMBER_COLUMNS}


def rows_of(n: int) -> dict[str, np.ndarray]:
    return {name: np.arange(n) % 100 for name in ROW_COLUMNS}


def write(path: Path, texts: list[str], values: np.ndarray, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "prompts": prompts_of(texts),
        "rows": rows_of(len(values)),
        "sections": {"last": len(values)},
        "activations": [("mlp_3", values)],
        "writes": None,
        "failed": {},
        "kinds": KINDS,
        "dtype": "float32",
    }
    write_shard(path, **(arguments | changes))


printable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    texts=st.lists(printable, max_size=5),
    values=hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(width=32)),
)
def test_a_shard_reads_back_as_it_was_written(tmp_path: Path, texts: list[str], values: np.ndarray) -> None:
    path = tmp_path / "shard.h5"
    writes = np.arange(len(texts) * 12, dtype=np.float32).reshape(len(texts), 2, 2, 3)
    write(path, texts, values, writes=writes, failed={"a": "why"})
    with open_shard(path) as file:
        read = read_prompts(file)
        assert read["text"].tolist() == texts
        assert read["index"].tolist() == list(range(len(texts)))
        assert read["refused"].dtype == bool
        np.testing.assert_array_equal(read_values(file, "activations/mlp_3", slice(None)), values)
        np.testing.assert_array_equal(read_values(file, "writes", slice(None)), writes)
        np.testing.assert_array_equal(column(file, "rows/position"), np.arange(len(values)) % 100)
        assert column(file, "failed/why").tolist() == ["why"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["shard.h5"]


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    write(tmp_path / "s.h5", ["a"], np.zeros((3000, 3), dtype=np.uint16), dtype="bfloat16")
    with h5py.File(tmp_path / "s.h5") as file:
        dataset: Any = file["activations/mlp_3"]
        assert dataset.chunks == (1024, 3)
        assert dataset.dtype == np.uint16
        assert dataset.attrs["dtype"] == "bfloat16"
        kinds: Any = file["rows/kind"]
        assert tuple(kinds.attrs["names"]) == KINDS


def test_text_that_hdf5_cannot_keep_is_replaced_not_fatal(tmp_path: Path) -> None:
    write(tmp_path / "s.h5", ["nul \0 and \ud800"], np.zeros((1, 3), dtype=np.float32))
    with open_shard(tmp_path / "s.h5") as file:
        assert column(file, "prompts/text").tolist() == ["nul \ufffd and ?"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_one_line_that_names_it(tmp_path: Path, share: float) -> None:
    path = tmp_path / "s.h5"
    write(path, ["a"], np.ones((2000, 3), dtype=np.float32))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"s\.h5 is damaged .*force=true") as caught, open_shard(path) as file:
        read_values(file, "activations/mlp_3", slice(None))
    assert "\n" not in str(caught.value)


def test_a_file_of_something_else_is_damaged_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["activations/mlp_3/group"] = 1
    with pytest.raises(InputError, match="not a dataset"), open_shard(tmp_path / "s.h5") as file:
        read_values(file, "activations/mlp_3", slice(None))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield "mlp_3", np.zeros((1, 3), dtype=np.float32)
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write(tmp_path / "s.h5", ["a"], np.zeros((1, 3), dtype=np.float32), activations=broken())
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_was_changed_is_not_sound(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path, ["a", "b"], np.arange(9000, dtype=np.float32).reshape(-1, 3))
    with open_shard(path, "r+") as file:
        assert all(is_sound(dataset(file, name)) for name in ("activations/mlp_3", "prompts/text", "rows/kind"))
        dataset(file, "activations/mlp_3")[2999, 2] = 7
        dataset(file, "prompts/text")[1] = "c"
        assert not is_sound(dataset(file, "activations/mlp_3"))
        assert not is_sound(dataset(file, "prompts/text"))
        replace_column(file, "prompts/refusal_score", np.array([1, 2]))
        assert is_sound(dataset(file, "prompts/refusal_score"))


def test_sections_are_runs_of_rows(tmp_path: Path) -> None:
    write(
        tmp_path / "s.h5", ["a"], np.zeros((9, 3), dtype=np.float32), sections={"last": 2, "template": 4, "prefix": 3}
    )
    with open_shard(tmp_path / "s.h5") as file:
        sections = read_sections(file)
    shard = Shard(tmp_path / "s.h5", "hate", "safe", "train", 2, 9, tuple(sections.items()))
    assert shard.runs(["prefix", "last"]) == [(0, 2), (6, 9)]
    assert shard.runs(["template"]) == [(2, 6)]
    assert shard.runs(["response"]) == []
