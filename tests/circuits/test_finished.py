"""A finished study is found from each of its folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from refusal import InputError
from refusal.artifacts import read_json, write_json
from refusal.circuits.circuit import Circuit, save_circuit
from refusal.circuits.finished import circuits_of_study, finished

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


def test_the_activations_are_those_of_the_same_content(home: Path) -> None:
    assert finished(home).store is None
    for name, content in {"a": "other", "b": "same"}.items():
        write_json(home / "activations" / name / "manifest.json", {"content": content})
    card = home / "circuits" / NAME / "card.json"
    write_json(card, {**read_json(card), "content": "same"})
    store = finished(home).store
    assert store is not None
    assert store.name == "b"


def test_circuits_are_found_by_category(home: Path) -> None:
    for category, side in (("hate", "all"), ("hate", "safe"), ("fraud", "all")):
        save_circuit(home / "circuits" / NAME, Circuit("planted", category, side, "atp", 1, True, 1.0, NAME))
    study = finished(home)
    assert [circuit.key for circuit in circuits_of_study(study)] == [("fraud", "all"), ("hate", "all")]
    assert [circuit.key for circuit in circuits_of_study(study, "hate")] == [("hate", "all")]
    with pytest.raises(InputError, match=r"no circuit of 'hat' in .*: did you mean hate\? valid: fraud, hate"):
        circuits_of_study(study, "hat")


def test_what_is_missing_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no report/verdict\.json"):
        finished(tmp_path)
    (home / "circuits" / NAME / "planted_comparison.json").unlink()
    with pytest.raises(InputError, match="comparison is not in"):
        finished(home)
