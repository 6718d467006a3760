from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refusal import InputError
from refusal.report.gallery import gallery_figure, main, read_exhibit
from tests.report.fixture import write_case

Homes = dict[str, Path]


def texts(figure: Any) -> list[str]:
    """The words over the columns."""
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        axes.get_title(loc="left") for axes in figure.axes
    ]


def test_the_truth_of_a_planted_model_stands_beside_what_was_found(tmp_path: Path):
    home = write_case(tmp_path, "planted")
    truth = home / "model" / "0123456789ab" / "truth.json"
    truth.parent.mkdir(parents=True)
    truth.write_text(json.dumps({"categories": ["a", "b"], "transfer": [[1.0, 0.4], [0.6, 1.0]]}))
    exhibit = read_exhibit(home)
    assert exhibit.truth == pytest.approx(0.5)  # (0.4 + 0.6) / 2 off the diagonal, 1 on it
    words = texts(gallery_figure([exhibit]))
    assert "mixed" in words
    assert any("written into its weights: 0.50\nfound: 0." in text for text in words)


def test_studies_of_different_categories_stand_side_by_side(homes: Homes):
    exhibits = [read_exhibit(homes[case]) for case in ("planted", "noisy", "one_site")]
    assert [exhibit.truth for exhibit in exhibits] == [None] * 3
    figure = gallery_figure(exhibits)
    assert {"mixed", "inconclusive", "monolithic"} <= set(texts(figure))
    named = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes if axes.images]
    assert [len(names) for names in named[:3]] == [10, 4, 2]
    again = gallery_figure([exhibits[0], exhibits[0]])
    second = [axes for axes in again.axes if axes.images][1]
    assert second.get_yticklabels() == []  # the same categories are named once


def test_the_command_writes_a_small_picture(homes: Homes, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "images" / "verdict.png"
    assert main([str(homes["planted"]), str(homes["one_site"]), "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000
    assert main([str(tmp_path), "--output", str(picture)]) == 1
    assert capsys.readouterr().err.count("error:") == 1


def test_a_study_without_transfer_has_no_place(homes: Homes, tmp_path: Path):
    comparison = next(homes["bare"].glob("circuits/*/*_comparison.json"))
    content = json.loads(comparison.read_text())
    content["transfer"]["direct"] = None
    home = tmp_path / "bare"
    study = home / "circuits" / comparison.parent.name
    study.mkdir(parents=True)
    (study / comparison.name).write_text(json.dumps(content))
    (home / "report").mkdir()
    (home / "report" / "verdict.json").write_bytes((homes["bare"] / "report" / "verdict.json").read_bytes())
    with pytest.raises(InputError, match="measured no causal transfer"):
        read_exhibit(home)
