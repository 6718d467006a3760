"""What comparisons read of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refusal.artifacts import write_json
from refusal.sweeps.job import distinct, read_quality
from tests.sweeps.jobs import job, trained


def test_a_heldout_figure_is_the_median_over_autoencoders():
    one = job(0, trained("mlp_1", fvu=0.1, toxic=0.3), trained("mlp_2", fvu=0.2, toxic=0.5))
    assert one.heldout("fvu") == pytest.approx(0.15)
    assert one.heldout("fvu", "toxic") == pytest.approx(0.4)
    assert one.heldout("fvu", "hard") == pytest.approx(0.15)
    assert job(0, trained()).heldout("fvu", "toxic") is None
    assert job(1).heldout("fvu") is None


def test_a_split_is_judged_by_the_autoencoder_that_is_for_it():
    pair = [trained(part="safe", fvu=0.1, toxic=0.9), trained(part="toxic", fvu=0.8, toxic=0.2)]
    assert job(0, *pair).heldout("fvu", "toxic") == 0.2
    assert job(0, *pair).heldout("fvu", "safe") == job(0, *pair).heldout("fvu", "hard") == 0.1


def test_faithfulness_is_the_median_over_circuits_that_have_one(tmp_path: Path):
    evaluation = [{"category": "a", "faithfulness": 0.8}, {"category": "b", "faithfulness": None}]
    evaluation.append({"category": "c", "faithfulness": 0.6})
    write_json(tmp_path / "tiny_comparison.json", {"evaluation": evaluation})
    assert job(0, circuits=tmp_path).faithfulness == pytest.approx(0.7)
    assert job(0).faithfulness is None


def test_recovered_refusal_is_that_of_the_autoencoders_for_a_split(tmp_path: Path):
    def measured(safe: float | None, toxic: float) -> dict[str, Any]:
        splits = {"safe": {"recovered_refusal": safe}, "toxic": {"recovered_refusal": toxic}}
        return {"splice": {"all": {"recovered_refusal": 0.5}, "splits": splits}}

    quality = {"mlp_1 safe 0": measured(0.9, -3.0), "mlp_1 toxic 0": measured(None, 0.8)}
    write_json(tmp_path / "quality.json", {"saes": quality})
    one = job(0, trained(part="safe"), trained(part="toxic"), quality=read_quality(tmp_path))
    assert (one.recovered("safe"), one.recovered("toxic"), one.recovered()) == (0.9, 0.8, 0.5)
    assert one.recovered_with("mlp_1 safe 0", "toxic") == -3.0
    assert job(0, trained(), quality=read_quality(tmp_path / "nothing")).recovered("toxic") is None


def test_an_autoencoder_that_two_jobs_share_is_there_once():
    shared = trained()
    assert distinct([job(0, shared), job(1, shared, trained("mlp_2"))]) == [shared, trained("mlp_2")]
