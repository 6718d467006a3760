"""The rule, how often the labels agree, and the prompts on which they do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from refusal.activations.store import MANIFEST
from refusal.report.blocks import Fold, Table, Text
from refusal.report.labels import MOST_LETTERS, MOST_LISTED, RULES, Labels, labels_section, read_labels
from refusal.report.study import Study, find
from tests.report.fixture import change, write_activations


def read(folder: Path, *, rule: str = "phrases", n_apart: int = 25) -> Labels:
    write_activations(folder / "store", content="c", rule=rule, n_apart=n_apart)
    return read_labels(folder / "store")


def listed(labels: Labels) -> Table:
    fold = labels_section(labels, texts=True).blocks[-1]
    assert isinstance(fold, Fold)
    (table,) = fold.blocks
    assert isinstance(table, Table)
    return table


def test_agreement_over_all_and_by_split(tmp_path: Path) -> None:
    table = labels_section(read(tmp_path), texts=True).blocks[1]
    assert isinstance(table, Table)
    assert table.rows == [
        ["safe", "40", "15", "38 %", "0", "25"],
        ["toxic", "40", "39", "98 %", "1", "0"],
        ["all", "80", "54", "68 %", "1", "25"],
    ]


def test_the_surest_scores_come_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    labels = read(tmp_path)
    table = listed(labels)
    assert len(labels.disagreements) == 26
    assert len(table.rows) == MOST_LISTED
    assert [row[2] for row in table.rows[:3]] == ["-99.0", "24.5", "23.5"]
    assert [row[3] for row in table.rows[:2]] == ["phrases", "score"]
    assert "6 more are not shown" in table.caption


def test_a_list_that_is_whole_says_nothing_of_more(tmp_path: Path) -> None:
    assert "more" not in listed(read(tmp_path, n_apart=3)).caption


def test_texts_are_cut_and_an_empty_response_is_named(tmp_path: Path) -> None:
    prompt, response = listed(read(tmp_path)).rows[0][:2]
    assert (len(prompt), prompt[-1]) == (MOST_LETTERS + 1, "…")
    assert response == "(empty)"


def test_prompts_made_from_others_do_not_count(tmp_path: Path) -> None:
    write_activations(tmp_path / "store", content="c")
    with h5py.File(tmp_path / "store" / "shard-0001.h5", "r+") as shard:
        change(shard, 0, variant="case")
    labels = read_labels(tmp_path / "store")
    assert labels.n_judged == {"safe": 40, "hard": 0, "toxic": 39}
    assert len(labels.disagreements) == 25


@pytest.mark.parametrize("rule", list(RULES))
def test_the_rule_is_named(tmp_path: Path, rule: str) -> None:
    text = labels_section(read(tmp_path, rule=rule), texts=True).blocks[0]
    assert text == Text(RULES[rule])


def test_full_agreement_is_said(tmp_path: Path) -> None:
    assert labels_section(read(tmp_path, n_apart=0), texts=True).blocks[-1] == Text(
        "The two rules disagree on no prompt."
    )


def test_without_responses_there_is_nothing_to_compare(tmp_path: Path) -> None:
    write_activations(tmp_path / "store", content="c", rule="score")
    path = tmp_path / "store" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "agreement": None}))
    blocks = labels_section(read_labels(tmp_path / "store"), texts=True).blocks
    assert blocks == [Text(RULES["score"]), Text("There are no responses or no scores to compare it with.")]


def test_a_study_finds_its_own_activations_or_says_that_they_are_gone(
    homes: dict[str, Path], studies: dict[str, Study]
) -> None:
    assert find(homes["noisy"]).store == homes["noisy"] / "activations" / "0123"
    assert find(homes["one_site"]).store is None
    gone = labels_section(replace(studies["noisy"], labels=None).labels, texts=True).blocks
    assert gone == labels_section(studies["one_site"].labels, texts=True).blocks
    assert len(gone) == 1


def test_both_pages_show_the_texts_escaped(homes: dict[str, Path]) -> None:
    page = (homes["noisy"] / "report" / "report.html").read_text()
    assert "What was called a refusal" in page
    assert "Sure | &lt;script&gt;" in page
    markdown = (homes["noisy"] / "report" / "report.md").read_text()
    assert "Sure \\| &lt;script&gt;" in markdown
    assert "<script>" not in markdown
    assert "<script>alert" not in page
