"""The section on the SAEs: what was measured stands there, what was not is a dash, what is poor is said first."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refusal.report.blocks import Picture, Table, Text
from refusal.report.build import main
from refusal.report.recovered import recovered_figure
from refusal.report.saes import saes_section
from refusal.report.study import Study, find, read_study

RECOVERED = {"mlp_2": (1.01, 0.9, 0.97), "attention_0": (None, None, 0.41), "residuals_1": (-3.0, None, 1.4)}
AREAS = {"auc": 0.91, "low": 0.88, "high": 0.93}
PROBED = {"features": {"1": AREAS, "5": AREAS}, "dimensions": {"1": AREAS, "5": AREAS}, "all_dimensions": AREAS}


def _sae(site: str) -> dict[str, Any]:
    splits = dict(zip(("safe", "hard", "toxic"), RECOVERED[site], strict=True))
    common = {"n_prompts": 120, "n_answered": 60, "kl": {"spliced": 0.0123}, "recovered_ce": None}
    common["refusal_rate"] = {"clean": 0.95, "spliced": 0.85, "ablated": 0.05}
    heldout = {"splits": {split: {"all": {"fvu": 0.25, "l0": 8.0}} for split in splits}}
    in_place = {split: {**common, "recovered_refusal": value} for split, value in splits.items()}
    return {
        "site": site,
        "heldout": heldout,
        "splice": {"all": common, "splits": in_place},
        "probing": {"toxic": PROBED},
    }


QUALITY = {"schema_version": 1, "saes": {name: _sae(name) for name in RECOVERED}}


@pytest.fixture
def study(studies: dict[str, Study]) -> Study:
    return replace(studies["planted"], quality=QUALITY)


def _tables(study: Study) -> list[Table]:
    return [block for block in saes_section(study).blocks if isinstance(block, Table)]


def test_each_sae_in_place_has_a_line_in_the_order_of_computation(study: Study):
    in_place = _tables(study)[1]
    assert [row[0] for row in in_place.rows] == ["attention_0", "residuals_1", "mlp_2"]
    assert list(in_place.rows[2][1:]) == ["0.012", "–", "1.01", "0.90", "0.97", "95 %", "85 %", "5 %"]
    assert list(in_place.rows[0][3:6]) == ["–", "–", "0.41"]
    assert "120 held-out prompts" in in_place.caption
    assert "60 of them answered" in in_place.caption


def test_sites_where_refusal_is_lost_are_named_first(study: Study):
    first = saes_section(study).blocks[0]
    warnings = [b.text for b in saes_section(study).blocks if isinstance(b, Text) and b.warning]
    assert isinstance(first, Text)
    assert any("under 80 % of the refusal" in text and "attention writes of layer 0:" in text for text in warnings)
    assert not any("MLP writes of layer 2:" in text and "of the refusal" in text for text in warnings)


def test_a_study_whose_saes_were_not_measured_shows_their_reconstruction_alone(studies: dict[str, Study]):
    section = saes_section(studies["planted"])
    assert len(_tables(studies["planted"])) == 1
    assert not any(isinstance(block, Picture) for block in section.blocks)
    assert "No SAE" in str(saes_section(studies["bare"]).blocks)


def test_the_figure_has_a_panel_for_each_kind_and_keeps_what_lies_outside_at_its_edge():
    figure = recovered_figure(QUALITY["saes"])
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["attention", "mlp", "residuals"]
    low, high = figure.axes[0].get_ylim()
    lines = [line for line in figure.axes[2].lines if line.get_marker() != "None"]
    shown = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lines])
    assert low < shown.min() < shown.max() < high


def test_where_no_site_matters_there_is_no_figure():
    sae = _sae("mlp_2")
    sae["splice"]["splits"] = {"safe": {"recovered_refusal": None}}
    assert recovered_figure({"mlp_2": sae}) is None
    assert recovered_figure({}) is None


def test_the_report_finds_the_measurement_of_its_own_saes(homes: dict[str, Path], tmp_path: Path):
    home = shutil.copytree(homes["planted"], tmp_path / "planted")
    own = read_study(find(home)).card["saes"]
    for name, saes in (("other", {"mlp_2": "topk-of-another-study"}), ("own", own)):
        (home / "quality" / name).mkdir(parents=True)
        (home / "quality" / name / "card.json").write_text(json.dumps({"saes": saes}))
        (home / "quality" / name / "quality.json").write_text(json.dumps(QUALITY))
    assert find(home).quality == home / "quality" / "own"
    assert main([str(home)]) == 0
    assert (home / "report" / "figures" / "recovered_refusal.png").read_bytes().startswith(b"\x89PNG")
    markdown, page = ((home / "report" / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    assert "figures/recovered_refusal.png" in markdown
    for text in (markdown, page):
        assert "CE recovered" in text
        assert "What is read off a few features" in text


def test_saes_of_one_side_are_said_to_be(studies: dict[str, Study]):
    study = studies["one_site"]
    toxic = {site: ({**config, "part": "toxic"}, heldout) for site, (config, heldout) in study.saes.items()}
    first = saes_section(replace(study, saes=toxic)).blocks[0]
    assert isinstance(first, Text)
    assert first.text == "Circuits are read with SAEs that were trained on toxic prompts only."
    assert "trained on" not in str(saes_section(study).blocks[0])
