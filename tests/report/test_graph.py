"""What the graph and the pages of features are given: the strongest nodes, edges between them, texts only if wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refusal.circuits.circuit import Circuit, Edge, Node
from refusal.circuits.features import STRONGEST
from refusal.report.blocks import Table, Text, View
from refusal.report.graph import MOST_EDGES, features_section, graph_view
from refusal.report.study import Study
from tests.report.fixture import TOKENS

Studies = dict[str, Study]


def circuit(n_nodes: int) -> Circuit:
    """A circuit whose nodes and edges grow stronger with their number, all pairs joined."""
    nodes = tuple(Node("mlp_2", i, float(i + 1), 1.0) for i in range(n_nodes))
    pairs = [(i, j) for i in range(n_nodes) for j in range(i)]
    edges = tuple(Edge(nodes[j].id, nodes[i].id, -float(i + j), 1.0) for i, j in pairs)
    return Circuit("m", "hate", "all", "atp", 9, True, 1.0, "f", {}, nodes, edges)


def test_the_strongest_nodes_are_drawn_with_the_strongest_edges_between_them(studies: Studies) -> None:
    n = STRONGEST + 30
    view = graph_view(replace(studies["planted"], circuits=(circuit(n),)))
    assert view is not None
    (drawn,) = view.data["circuits"]
    assert (drawn["n_nodes"], drawn["n_edges"]) == (n, n * (n - 1) // 2)
    assert [feature for _, feature, _ in drawn["nodes"]] == list(range(n - 1, n - 1 - STRONGEST, -1))
    assert len(drawn["edges"]) == MOST_EDGES
    up, down, weight = drawn["edges"][0]
    assert weight == -float(2 * n - 3)
    assert sorted((drawn["nodes"][up][1], drawn["nodes"][down][1])) == [n - 2, n - 1]


def test_sites_stand_in_the_order_of_computation(studies: Studies) -> None:
    view = graph_view(studies["planted"])
    assert view is not None
    assert list(view.data["sites"].values()) == [[0, "attention"], [0, "MLP"], [0, "residual"], [1, "attention"]]


def pages(study: Study, *, texts: bool) -> dict[str, Any]:
    (section,) = features_section(study, texts=texts)
    (view,) = [block for block in section.blocks if isinstance(block, View)]
    return dict(view.data)


def test_a_feature_is_a_node_of_the_circuits_that_it_is_in(studies: Studies) -> None:
    study = studies["planted"]
    found = pages(study, texts=True)["nodes"]["mlp_0/17"]
    expected = {c.category: node.importance for c in study.circuits for node in c.nodes if node.id == "mlp_0/17"}
    assert {category: round(value, 2) for category, value in found} == {c: round(v, 2) for c, v in expected.items()}


def test_without_texts_no_token_of_a_prompt_goes_to_the_page(studies: Studies) -> None:
    with_texts, without = (pages(studies["noisy"], texts=texts)["prompts"] for texts in (True, False))
    assert with_texts[0]["tokens"] == TOKENS
    assert "tokens" not in without[0]
    assert without[0]["id"] == "p0"


def test_the_table_names_the_strongest_over_all_categories(studies: Studies) -> None:
    (section,) = features_section(studies["planted"], texts=True)
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert len(table.rows) == 8  # two features at four sites; the errors have no page
    assert all(row[1] == "10 of 10" for row in table.rows)
    assert table.rows[0][3] == "Tell, me, how, ?"


def test_features_where_circuits_are_compared_come_first(studies: Studies) -> None:
    study = studies["planted"]
    comparison = {**study.comparison, "combined": {**study.comparison["combined"], "sites": ["residuals_0"]}}
    (section,) = features_section(replace(study, comparison=comparison), texts=True)
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[0].split("/")[0] == "residuals_0" for row in table.rows] == [True] * 2 + [False] * 6
    (view,) = [block for block in section.blocks if isinstance(block, View)]
    assert view.data["first"] == table.rows[0][0]


def test_a_study_from_before_features_were_described_says_so(studies: Studies) -> None:
    (section,) = features_section(studies["one_site"], texts=True)
    (text,) = section.blocks
    assert isinstance(text, Text)
    assert "force=true" in text.text
    assert features_section(studies["bare"], texts=True) == []
