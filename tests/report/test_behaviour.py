from __future__ import annotations

from typing import Any

from refusal.report.behaviour import behaviour_sections
from refusal.report.blocks import Fold, Table
from tests.report.parts import interventions

Rows = list[dict[str, Any]]


def tables(rows: Rows) -> tuple[Table, list[Table]]:
    """The table of means, and the folded ones with a line a category: refused prompts, and complied ones."""
    (section,) = behaviour_sections({"behaviour": rows})
    means, fold = section.blocks[1:]
    assert isinstance(means, Table)
    assert isinstance(fold, Fold)
    return means, [block for block in fold.blocks if isinstance(block, Table)]


def test_means_give_each_category_the_same_weight():
    rows = interventions("hate") + interventions("fraud")
    for row in rows:
        if row["category"] == "fraud" and row["intervention"] == "circuit removed":
            row.update(refusal_rate=0.5, score=-1.1, n_prompts=45)
    means, _ = tables(rows)
    # (0 + 0.5) / 2, and (-6.1 - 1.1) / 2 = -3.6 nats, whatever the numbers of prompts, 15 and 45
    assert list(means.rows[1]) == ["refused", "circuit removed", "60", "25 %", "-3.6", "4.800"]
    assert list(means.rows[0])[:2] == ["refused", "nothing changed"]
    assert [row[0] for row in means.rows] == ["refused"] * 6 + ["complied"] * 7


def test_a_category_without_complied_prompts_is_in_one_table_only():
    rows = [row for row in interventions("hate") if row["prompts"] == "refused"] + interventions("fraud")
    _, (refused, complied) = tables(rows)
    assert list(refused.rows[0])[:3] == ["hate", "100 % (5.2)", "0 % (-6.1)"]  # the score
    assert [row[0] for row in refused.rows] == ["hate", "fraud"]
    assert [row[0] for row in complied.rows] == ["fraud"]
    assert list(complied.rows[0])[:3] == ["fraud", "0 % (0.000)", "0 % (0.011)"]  # the divergence
    assert complied.headers[-1] == "circuit switched on"


def test_a_study_from_before_the_divergence_was_measured_has_dashes():
    rows = [{key: value for key, value in row.items() if key != "kl"} for row in interventions("hate")]
    means, (_, complied) = tables(rows)
    assert {row[-1] for row in means.rows} == {"–"}
    assert list(complied.rows[0])[1] == "0 % (–)"


def test_a_study_that_did_not_intervene_has_no_section():
    assert behaviour_sections({"behaviour": []}) == []
    assert behaviour_sections({}) == []
