from __future__ import annotations

import json
from pathlib import Path

import pytest

from refusal import InputError
from refusal.circuits.circuit import ERROR, Circuit, Edge, Node, circuit_filename, load_circuit, save_circuit


def example() -> Circuit:
    nodes = (Node("mlp_1", 7, 2.0, 1.0), Node("mlp_1", ERROR, 0.5, 0.25), Node("residuals_1", 3, -1.0, -1.0))
    return Circuit(
        "planted_m0.5",
        "self-harm",
        "toxic",
        "atp",
        40,
        True,
        3.0,
        "0123456789ab",
        {"mlp_1": 2.0, "residuals_1": 1.0},
        nodes,
        (Edge("mlp_1/7", "residuals_1/3", -0.5, -1.0),),
    )


def test_a_file_gives_back_the_circuit(tmp_path: Path) -> None:
    path = save_circuit(tmp_path, example())
    assert path.name == "planted_m0.5_self-harm_toxic_circuit.json"
    assert load_circuit(path) == example()


def test_features_and_error_of_a_site() -> None:
    assert example().features("mlp_1") == [7]
    assert example().has_error("mlp_1")
    assert not example().has_error("residuals_1")


@pytest.mark.parametrize(
    ("side", "name"),
    [("all", "m_hate_circuit.json"), ("safe", "m_hate_safe_circuit.json"), ("toxic", "m_hate_toxic_circuit.json")],
)
def test_file_names(side: str, name: str) -> None:
    assert circuit_filename("m", "hate", side) == name


def test_a_file_name_never_leaves_its_folder() -> None:
    assert "/" not in circuit_filename("org/m", "../../etc")


@pytest.mark.parametrize("content", [{}, [], {"schema_version": 99}, {"schema_version": 1, "nodes": [{}], "edges": []}])
def test_another_content_is_one_clear_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not a circuit"):
        load_circuit(path)
