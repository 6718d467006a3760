from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refusal import InputError
from refusal.report.study import Study, find, read_study
from tests.report.fixture import write_case
from tests.report.parts import FINGERPRINT


def test_a_study_is_found_from_each_of_its_folders(tmp_path: Path):
    home = write_case(tmp_path, "one_site")
    kept = home / "report" / "studies" / FINGERPRINT
    shutil.copytree(home / "report", kept)
    assert find(home).circuits == find(home / "report").circuits == find(kept).circuits
    assert find(kept).report == kept
    assert [folder.parent.name for folder in find(home).saes] == ["mlp_2"]


def test_saes_of_other_studies_are_left_out(tmp_path: Path):
    home = write_case(tmp_path, "one_site")
    shutil.copytree(home / "saes" / "mlp_2" / "topk-aaaabbbbcccc", home / "saes" / "mlp_2" / "topk-ddddeeeeffff")
    assert [folder.name for folder in find(home).saes] == ["topk-aaaabbbbcccc"]


def test_the_figures_on_heldout_rows_count(studies: dict[str, Study]):
    config, heldout = studies["one_site"].saes["mlp_2"]
    assert config["d_sae"] == 512
    assert heldout["all"]["fvu"] == 0.14
    assert heldout["last"]["n_rows"] == 90


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no report/verdict\.json"):
        find(tmp_path)
    home = write_case(tmp_path, "one_site")
    shutil.rmtree(home / "circuits")
    with pytest.raises(InputError, match=r"comparison is not in"):
        find(home)


def test_a_damaged_file_is_named(tmp_path: Path):
    home = write_case(tmp_path, "one_site")
    next(home.glob("circuits/*/*_comparison.json")).write_text("{")
    with pytest.raises(InputError, match=r"_comparison\.json is not valid JSON"):
        read_study(find(home))
