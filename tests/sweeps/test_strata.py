"""Studies of how training rows are chosen."""

from __future__ import annotations

import pytest

from refusal.sweeps.strata import compare
from tests.sweeps.jobs import job, trained


def test_a_row_has_both_sides_and_the_rows_that_all_autoencoders_of_a_site_saw():
    shared = job(0, *[trained(site, toxic=0.6) for site in ("mlp_1", "mlp_2")], verdict={"index": 0.9})
    pair = job(1, trained(part="safe", toxic=0.9), trained(part="toxic", fvu=0.8, toxic=0.1))
    first, second, failed = compare([shared, pair, job(2, status="failed")]).rows
    assert (first["fvu_safe"], first["fvu_toxic"], first["index"], first["rows"]) == (0.2, 0.6, 0.9, 640)
    assert (second["fvu_safe"], second["fvu_toxic"], second["index"], second["rows"]) == (0.2, 0.1, None, 1280)
    assert (failed["status"], failed["rows"], failed["l0_toxic"]) == ("failed", None, None)


def test_the_picture_has_a_line_for_each_job():
    figure = compare([job(0, trained(toxic=0.6)), job(1, trained(toxic=0.3))]).figure
    assert figure is not None
    fvu = figure.axes[0]
    assert [label.get_text() for label in fvu.get_yticklabels()] == ["arm0", "arm1"]
    points = {line.get_label(): line.get_xydata().tolist() for line in fvu.lines}  # type: ignore[union-attr]
    assert points["safe"] == [[0.2, pytest.approx(-0.12)], [0.2, pytest.approx(0.88)]]
    assert points["toxic"] == [[0.6, pytest.approx(0.12)], [0.3, pytest.approx(1.12)]]


def test_what_was_not_measured_is_said():
    figure = compare([job(0, trained())]).figure
    assert figure is not None
    assert [text.get_text() for text in figure.axes[4].texts] == ["not measured"]
