from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import networkx
import pytest

from refusal.circuits.circuit import Circuit, load_circuit
from refusal.circuits.export import export, graphml, main
from tests.circuits.test_circuit import example


def read(text: str) -> networkx.DiGraph:
    graph = networkx.parse_graphml(text)
    assert isinstance(graph, networkx.DiGraph)
    return graph


def test_networkx_reads_nodes_edges_and_facts() -> None:
    circuit = example()
    graph = read(graphml(circuit))
    assert list(graph) == [node.id for node in circuit.nodes]
    assert graph.nodes["mlp_1/-1"] == {
        "site": "mlp_1",
        "kind": "mlp",
        "layer": 1,
        "feature": -1,
        "is_error": True,
        "importance": 0.5,
        "scaled": 0.25,
    }
    assert dict(graph.edges) == {("mlp_1/7", "residuals_1/3"): {"weight": -0.5, "scaled": -1.0}}
    assert graph.graph["category"] == "self-harm"
    assert graph.graph["n_prompts"] == 40
    assert graph.graph["has_circuit"] is True


@pytest.mark.parametrize("name", ["<b>&\"'", "a\x00b\x1b[2J", "\ud800", "two\nlines"])
def test_any_name_of_a_category_is_valid_xml(name: str) -> None:
    text = graphml(replace(example(), category=name))
    ElementTree.fromstring(text.encode())
    assert not any(c in text for c in "\x00\x1b\ud800")
    if name.isprintable():
        assert read(text).graph["category"] == name


def test_a_circuit_without_nodes_is_an_empty_graph() -> None:
    assert len(read(graphml(Circuit("m", "hate", "all", "atp", 0, False, 0.0, "")))) == 0


def test_all_circuits_of_a_study_are_written_into_a_folder(
    homes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(homes["planted"]), "--to", "graphml", "--out", str(tmp_path / "graphs")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(paths) == sorted((tmp_path / "graphs").iterdir())
    assert {read(path.read_text()).graph["side"] for path in paths} == {"all"}
    assert len(paths) == 10


def test_one_category_is_written_into_a_file(homes: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "hate.json"
    assert export(homes["planted"], "json", category="hate", out=path) == [path]
    (original,) = homes["planted"].glob("circuits/*/*_hate_circuit.json")
    assert json.loads(path.read_text()) == json.loads(original.read_text())
    assert load_circuit(path).category == "hate"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "graphml", "--category", "hat"], "did you mean hate?"),
        (["--to", "graphlm"], "did you mean graphml?"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(
    homes: dict[str, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(homes["planted"]), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
