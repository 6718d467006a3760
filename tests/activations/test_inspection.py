"""What is whole is said to be whole; whatever is damaged is named, by file and dataset."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refusal import InputError
from refusal.activations.inspect import main
from refusal.activations.inspection import Inspection, Norms, find_stores, inspect_store
from refusal.activations.shard import dataset
from refusal.activations.store import MANIFEST, ActivationStore
from refusal.artifacts import read_json, write_json
from tests.activations.conftest import MIXED, SITE, write_store

SHARD = "shard-0002.h5"  # 40 prompts with 6 rows each


def problems(inspection: Inspection) -> list[str]:
    return [str(problem) for problem in inspection.problems]


def change(path: Path, name: str, at: tuple[Any, ...], value: object) -> None:
    with h5py.File(path, "r+") as file:
        dataset(file, name)[at] = value


# --- what is there ------------------------------------------------------------------------------------------


def test_a_whole_store_has_no_problems_and_its_figures_are_right(mixed: ActivationStore) -> None:
    inspection = inspect_store(mixed.folder)
    assert problems(inspection) == []
    assert (len(inspection.shards), inspection.n_planned, inspection.is_finished) == (7, 7, True)
    shard = inspection.shards[2]
    assert (shard.category, shard.split, shard.fold, shard.n_prompts, shard.n_rows) == (
        "hate",
        "safe",
        "train",
        40,
        240,
    )
    assert shard.sections == {"last": 40, "instruction": 200}
    assert (shard.n_bytes, shard.dtype, shard.compression) == ((mixed.folder / SHARD).stat().st_size, "float32", "")
    table = mixed.prompts()
    for (category, split), labels in inspection.labels.items():
        here = table[(table["category"] == category) & (table["split"] == split)]
        assert (labels.n_prompts, labels.n_refused) == (len(here), here["refused"].sum())
    assert inspection.agreement == 1.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norms_are_those_of_last_rows_and_of_the_others(tmp_path: Path, dtype: str) -> None:
    store = write_store(tmp_path, MIXED, dtype=dtype)
    last, others = inspect_store(tmp_path).norms[SITE]
    rows = np.concatenate([store.read_rows(shard, SITE, 0, shard.n_rows) for shard in store.shards])
    norms, is_last = np.linalg.norm(rows, axis=1), rows[:, 2] == 1
    for found, expected in ((last, norms[is_last]), (others, norms[~is_last])):
        assert found.n_rows == len(expected)
        assert found.mean == pytest.approx(expected.mean(), rel=1e-6)
        assert found.median == pytest.approx(np.sort(expected)[(len(expected) - 1) // 2], rel=0.002)
        assert found.largest == pytest.approx(expected.max(), rel=1e-6)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-1e3, 1e3, width=32)))
def test_norms_do_not_depend_on_the_pieces_in_which_rows_come(rows: np.ndarray) -> None:
    whole, pieces = Norms(), Norms()
    whole.add(rows)
    for row in rows:
        pieces.add(row[None])
    assert pieces.median == whole.median
    assert pieces.largest == whole.largest
    assert pieces.mean == pytest.approx(whole.mean)


def test_numbers_that_are_not_finite_are_counted_and_spoil_no_norm() -> None:
    norms = Norms()
    norms.add(np.array([[3, 4], [np.nan, np.inf], [-np.inf, 0]], dtype=np.float32))
    assert (norms.n_bad, norms.n_rows, norms.mean, norms.largest) == (3, 1, 5.0, 5.0)


def test_labels_that_disagree_are_counted(mixed: ActivationStore) -> None:
    change(mixed.folder / SHARD, "prompts/by_score", (slice(0, 21),), True)
    assert inspect_store(mixed.folder, values=False).agreement == pytest.approx(1 - 21 / 105)


def test_without_values_only_the_structure_is_checked(mixed: ActivationStore) -> None:
    change(mixed.folder / SHARD, f"activations/{SITE}", (3, 1), 77.0)
    inspection = inspect_store(mixed.folder, values=False)
    assert (problems(inspection), inspection.norms) == ([], {})


# --- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        (f"activations/{SITE}", (239, 3), 1e-3),
        ("prompts/response", (5,), "Sorry"),
        ("prompts/refused", (5,), True),
        ("rows/position", (200,), 0),
    ],
)
def test_any_changed_value_is_found_and_named(mixed: ActivationStore, name: str, at: tuple[int], value: object) -> None:
    before = problems(inspect_store(mixed.folder))
    change(mixed.folder / SHARD, name, at, value)
    assert before == []
    assert problems(inspect_store(mixed.folder)) == [f"{SHARD}: {name}: the checksum differs"]


def test_every_byte_of_the_activations_is_guarded(mixed: ActivationStore) -> None:
    path = mixed.folder / SHARD
    with h5py.File(path) as file:
        found = dataset(file, f"activations/{SITE}").id.get_chunk_info(0)
    content = path.read_bytes()
    for at in (0, 1000, found.size - 1):
        damaged = bytearray(content)
        damaged[found.byte_offset + at] ^= 1
        path.write_bytes(damaged)
        assert problems(inspect_store(mixed.folder)) == [f"{SHARD}: activations/{SITE}: the checksum differs"]


@pytest.mark.parametrize("left", [0, 300, -1])
def test_a_shard_cut_short_is_found_without_reading_values(mixed: ActivationStore, left: int) -> None:
    path = mixed.folder / SHARD
    os.truncate(path, left if left >= 0 else path.stat().st_size + left)
    (problem,) = problems(inspect_store(mixed.folder, values=False))
    assert problem.startswith(f"{SHARD}: is damaged: ")


def test_a_missing_shard_is_found_and_the_others_are_still_looked_into(mixed: ActivationStore) -> None:
    (mixed.folder / SHARD).unlink()
    inspection = inspect_store(mixed.folder)
    assert problems(inspection) == [f"{SHARD}: is missing"]
    assert len(inspection.shards) == 6


def test_a_shard_in_the_place_of_another_is_found(mixed: ActivationStore) -> None:
    shutil.copy(mixed.folder / "shard-0003.h5", mixed.folder / SHARD)
    said = "\n".join(problems(inspect_store(mixed.folder)))
    assert "n_prompts is 7, and the manifest says 40" in said
    assert "n_rows is 35, and the manifest says 240" in said
    assert "split is toxic, and the manifest says safe" in said


def test_activations_that_are_missing_or_too_few_are_found(mixed: ActivationStore) -> None:
    with h5py.File(mixed.folder / SHARD, "r+") as file:
        del file[f"activations/{SITE}"]
    with h5py.File(mixed.folder / "shard-0003.h5", "r+") as file:
        attributes = dict(file[f"activations/{SITE}"].attrs)
        del file[f"activations/{SITE}"]
        file[f"activations/{SITE}"] = np.zeros((34, 4), dtype=np.float32)
        file[f"activations/{SITE}"].attrs.update(attributes)
    assert problems(inspect_store(mixed.folder, values=False)) == [
        f"{SHARD}: activations/{SITE}: is missing",
        f"shard-0003.h5: activations/{SITE}: has shape (34, 4), and not (35, 4)",
    ]


# --- stores that are not finished, and what else a path can be ----------------------------------------------


def unfinish(folder: Path) -> None:
    """Leave what a killed collection leaves: the plan and some shards, one of them yet to be scored."""
    shards = read_json(folder / MANIFEST)["shards"]
    plan = {shard["file"]: ["id"] * shard["n_prompts"] for shard in shards}
    write_json(folder / "plan.json", {"sites": [SITE], "dtype": "float32", "shards": plan})
    (folder / MANIFEST).unlink()
    (folder / "shard-0000.h5").rename(folder / "shard-0000.h5.unscored")
    (folder / "shard-0006.h5").unlink()


def test_an_unfinished_store_is_no_problem(mixed: ActivationStore, capsys: pytest.CaptureFixture[str]) -> None:
    unfinish(mixed.folder)
    assert main([str(mixed.folder)]) == 0
    assert "unfinished: 6 of 7 shards" in capsys.readouterr().out
    assert inspect_store(mixed.folder).labels["hate", "safe"].n_prompts == 40  # the 5 that wait have no labels yet


def test_a_shard_of_an_unfinished_store_must_have_the_planned_prompts(mixed: ActivationStore) -> None:
    unfinish(mixed.folder)
    plan = json.loads((mixed.folder / "plan.json").read_text())
    plan["shards"][SHARD].append("one more")
    write_json(mixed.folder / "plan.json", plan)
    assert problems(inspect_store(mixed.folder)) == [f"{SHARD}: 40 prompts, and the plan has 41"]


def test_one_shard_can_be_looked_into(mixed: ActivationStore) -> None:
    inspection = inspect_store(mixed.folder / SHARD)
    assert problems(inspection) == []
    assert [shard.n_rows for shard in inspection.shards] == [240]


def test_every_store_of_a_models_outputs_folder_is_found(tmp_path: Path) -> None:
    stores = [tmp_path / "planted" / "activations" / name for name in ("a", "b")]
    for folder in stores:
        folder.mkdir(parents=True)
        write_store(folder, MIXED[:1])
    assert find_stores(tmp_path / "planted") == find_stores(tmp_path / "planted" / "activations") == stores
    assert find_stores(stores[0]) == stores[:1]
    with pytest.raises(InputError, match="there are no activations in"):
        find_stores(tmp_path)


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_shows_a_store_and_its_status_says_whether_it_is_whole(
    mixed: ActivationStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(mixed.folder)]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines[SHARD][1:7] == ["hate", "safe", "train", "40", "40", "200"]
    assert "toxic privacy       2       41" in out
    assert "every checksum is right" in out
    change(mixed.folder / SHARD, "prompts/n_tokens", (0,), 1)
    assert main([str(mixed.folder), "--fast"]) == 0
    assert main([str(mixed.folder)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: {SHARD}: prompts/n_tokens: the checksum differs\n"


def test_what_is_no_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 1
    assert main(["--quick"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: there are no activations in")
    assert second.startswith("error: ")


def test_names_from_the_data_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path, [("[red]evil\x1b[31m", "safe", "train", 2, 2)])
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]evil" in out
