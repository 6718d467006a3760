from __future__ import annotations

from typing import Any

from refusal.report.behaviour import behaviour_sections
from refusal.report.blocks import Fold, Table
from tests.report.parts import interventions

Rows = list[dict[str, Any]]


def tables(rows: Rows) -> tuple[Table, Table]:
    """The table of means, and the folded one with a line a category."""
    (section,) = behaviour_sections({"behaviour": rows})
    means, fold = section.blocks[1:]
    assert isinstance(means, Table)
    assert isinstance(fold, Fold)
    inner = fold.blocks[0]
    assert isinstance(inner, Table)
    return means, inner


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


def test_a_category_without_complied_prompts_has_dashes():
    rows = [row for row in interventions("hate") if row["prompts"] == "refused"] + interventions("fraud")
    _, each = tables(rows)
    assert list(each.rows[0])[:3] == ["hate", "100 % (5.2)", "0 % (-6.1)"]
    assert list(each.rows[0])[-7:] == ["–"] * 7
    assert each.headers[-1] == "complied: circuit switched on"


def test_a_study_that_did_not_intervene_has_no_section():
    assert behaviour_sections({"behaviour": []}) == []
    assert behaviour_sections({}) == []
