"""Sweeps of sizes and options."""

from __future__ import annotations

from refusal.sweeps.autoencoders import autoencoder_rows, compare
from tests.sweeps.jobs import job, trained


def test_a_row_for_each_job_and_a_failed_one_is_marked():
    jobs = [job(0, trained(k=4), verdict={"verdict": "mixed", "index": 0.5}), job(1, status="failed")]
    first, second = compare(jobs).rows
    assert (first["arm"], first["status"], first["fvu"], first["l0"]) == ("arm0", "done", 0.2, 4.0)
    assert (first["verdict"], first["index"]) == ("mixed", 0.5)
    assert (second["status"], second["fvu"], second["verdict"]) == ("failed", None, None)


def test_fvu_is_drawn_against_l0_where_there_is_something_to_compare():
    figure = compare([job(0, trained(k=4, fvu=0.3)), job(1, trained(k=8, fvu=0.1))]).figure
    assert figure is not None
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[4, 0.3], [8, 0.1]]  # type: ignore[union-attr]
    assert compare([job(0, trained("mlp_1")), job(1, trained("mlp_2"))]).figure is None


def test_each_autoencoder_has_a_record_with_its_splits():
    (row,) = autoencoder_rows([job(3, trained("mlp_2", toxic=0.4, part="toxic", seed=2))])
    assert (row["job"], row["arm"], row["site"], row["part"], row["seed"], row["rows"]) == (
        *(3, "arm3", "mlp_2"),
        *("toxic", 2, 640),
    )
    assert (row["fvu"], row["fvu_toxic"], row["fvu_hard"]) == (0.4, 0.4, 0.2)
