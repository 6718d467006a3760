from __future__ import annotations

from dataclasses import replace
from typing import Any

from refusal.report.audit import audit_sections
from refusal.report.blocks import Block, Table, Text
from refusal.report.study import Study


def blocks(study: Study, anchor: str) -> list[Block]:
    """The blocks of one section."""
    sections = audit_sections(study, "command", "rebuild", texts=True)
    return list(next(section.blocks for section in sections if section.anchor == anchor))


def tables(study: Study, anchor: str) -> list[Table]:
    return [block for block in blocks(study, anchor) if isinstance(block, Table)]


def test_split_by_refused_names_over_refusal_and_compliance(studies: dict[str, Study]):
    study = studies["noisy"]
    counts = {**study.comparison["refusal_by_split"], "toxic": {"refused": 150, "total": 200}}
    rows = tables(replace(study, comparison={**study.comparison, "refusal_by_split": counts}), "data")[0].rows
    assert rows[1] == ["hard", "200", "62", "31 %", "over-refusal"]
    assert rows[2] == ["toxic", "200", "150", "75 %", "complied with 25 %"]


def test_rates_alone_are_shown_where_there_are_no_counts(studies: dict[str, Study]):
    study = studies["noisy"]
    rows = tables(replace(study, comparison={**study.comparison, "refusal_by_split": None}), "data")[0].rows
    assert rows[0] == ["safe", "–", "–", "6 %", ""]


def test_who_has_no_vote_and_why(studies: dict[str, Study]):
    rows = {row[0]: row for row in tables(studies["noisy"], "data")[1].rows}
    assert rows["fraud"][1:] == ["40, 20, 20", "25 %", "40", "36", "4", "0.90", "no: only 4 complied"]
    assert rows["spam"][-1] == "yes"


def test_drops_over_the_voting_categories_only(studies: dict[str, Study]):
    study = studies["noisy"]
    transfer = study.comparison["transfer"]
    direct: dict[str, Any] = {**transfer["direct"], "drops": [[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]]}
    changed = replace(study, comparison={**study.comparison, "transfer": {**transfer, "direct": direct}})
    own = {row[0]: row[6] for row in tables(changed, "data")[1].rows}
    assert own["fraud"] == "–"
    assert own["spam"] == "3.00"


def test_poor_saes_are_named_in_the_order_of_the_flow(studies: dict[str, Study]):
    good = {"all": {"fvu": 0.1, "l0": 8, "dead_fraction": 0.0}, "last": {"fvu": 0.1}}
    bad = {"all": {"fvu": 0.1, "l0": 8, "dead_fraction": 0.0}, "last": {"fvu": 0.5}}
    dying = {"all": {"fvu": 0.1, "l0": 8, "dead_fraction": 0.6}, "last": {"fvu": 0.1}}
    figures = {"residuals_2": bad, "mlp_10": good, "attention_2": dying, "mlp_9": {}}
    study = replace(studies["one_site"], saes={site: ({"d_sae": 64}, heldout) for site, heldout in figures.items()})
    warning, note, table = blocks(study, "saes")
    assert isinstance(warning, Text)
    assert "at residual stream of layer 2: the circuits there deserve less trust" in warning.text
    assert isinstance(note, Text)
    assert "idle at attention writes of layer 2" in note.text
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["attention_2", "residuals_2", "mlp_9", "mlp_10"]
    assert table.rows[2] == ["mlp_9", "64", *"–––––"]


def test_how_to_reproduce_it(studies: dict[str, Study]):
    (which,) = tables(studies["one_site"], "reproduce")
    assert ["fingerprint", "0123456789ab"] in which.rows
    assert ["torch", "2.9.1"] in which.rows  # as recorded, not as installed
    bare = replace(studies["one_site"], card={})
    assert "installed where this report was made" in tables(bare, "reproduce")[0].caption
