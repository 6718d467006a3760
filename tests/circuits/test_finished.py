"""A finished study is found from each of its folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from refusal import InputError
from refusal.artifacts import write_json
from refusal.circuits.finished import finished

NAME = "0123456789ab"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "outputs" / "planted"
    for folder in ("report", f"report/studies/{NAME}", f"circuits/{NAME}"):
        write_json(home / folder / "verdict.json", {"fingerprint": NAME})
    write_json(home / "circuits" / NAME / "planted_comparison.json", {})
    write_json(home / "circuits" / NAME / "card.json", {"saes": {"mlp_2": "topk-a", "mlp_3": "topk-b"}})
    write_json(home / "saes" / "mlp_2" / "topk-a" / "cfg.json", {})
    return home


@pytest.mark.parametrize(
    ("folder", "report"),
    [
        (".", "report"),
        ("report", "report"),
        (f"report/studies/{NAME}", f"report/studies/{NAME}"),
        (f"circuits/{NAME}", f"report/studies/{NAME}"),
    ],
)
def test_a_study_is_found_from_each_of_its_folders(home: Path, folder: str, report: str) -> None:
    found = finished(home / folder)
    assert (found.home.resolve(), found.report.resolve()) == (home.resolve(), (home / report).resolve())
    assert found.circuits.resolve() == (home / "circuits" / NAME).resolve()


def test_autoencoders_that_are_there_are_named_by_site(home: Path) -> None:
    assert list(finished(home).saes) == ["mlp_2"]


def test_what_is_missing_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no report/verdict\.json"):
        finished(tmp_path)
    (home / "circuits" / NAME / "planted_comparison.json").unlink()
    with pytest.raises(InputError, match="comparison is not in"):
        finished(home)
