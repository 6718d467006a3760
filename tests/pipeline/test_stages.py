"""collect -> train -> discover as three commands, then again, and everything that follows from what stands there."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from refusal.activations.store import ActivationStore
from refusal.circuits.circuit import load_circuit
from tests.pipeline.whole import (
    PLANTED,
    QUICK,
    SITES,
    SMALL,
    command,
    finish,
    leftovers,
    python,
    start,
    succeed,
    verdict,
)

HEAVY = ("torch", "pytorch_lightning", "transformers", "matplotlib", "pandas")


def test_a_second_run_finds_everything_in_a_moment(study: Path) -> None:
    started = time.monotonic()
    done = python(study, "discover", *SMALL, flags=("-X", "importtime"))
    seconds = time.monotonic() - started
    assert done.status == 0
    assert {state for _, state in done.states} == {"found"}
    assert [stage for stage, _ in done.states] == ["activations", "sae", "quality", "circuits", "heatmap", "report"]
    assert done.verdict == "monolithic"
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines() if line.startswith("import time:")}
    assert "refusal.pipeline" in imported
    assert not imported & set(HEAVY)
    assert seconds < 15


def test_a_site_of_a_larger_store_is_found(study: Path) -> None:
    done = succeed(study, "collect", *PLANTED, *QUICK, "layers=mlp_2")
    assert done.states == [("activations", "found")]
    done = succeed(study, "train", *PLANTED, *QUICK, "layers=mlp_1-2", "quality.max_prompts=0")
    assert done.states == [("activations", "found"), ("sae", "found")]


def test_absent_autoencoders_are_an_error_where_none_are_to_be_trained(study: Path) -> None:
    before = sorted(study.rglob("*"))
    done = command(study, "discover", *PLANTED, *QUICK, "layers=attention_1", "train_saes=false")
    assert done.status != 0
    (line,) = done.err.splitlines()
    assert line.startswith("error: there is no autoencoder in outputs/planted/saes/attention_1/topk-")
    assert line.endswith("train_saes=false; run train.py first")
    new = [path for path in sorted(study.rglob("*")) if path not in before and "runs" not in path.parts]
    assert new == []
    assert succeed(study, "discover", *SMALL, "train_saes=false").verdict == "monolithic"


def test_plan_prints_and_builds_nothing(tmp_path: Path, study: Path) -> None:
    done = succeed(tmp_path, "discover", *SMALL, "plan=true")
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert lines["model"] == "planted: 4 blocks, d_model 128"
    assert lines["prompts"] == "96 in 3 categories"
    assert lines["sites"] == "3: mlp_1, mlp_2, residuals_2"
    for stage in ("activations", "sae", "circuits", "report"):
        assert lines[stage].startswith("to build ")
    assert lines["rows"].endswith("at each site, in 27 shards")
    for line in ("disk", "memory", "time", "guessed"):
        assert line in lines
    home = tmp_path / "outputs" / "planted"
    assert {path.name for path in home.parent.iterdir()} == {"runs", "planted"}
    assert [path.name for path in home.iterdir()] == ["model"]  # on which batches were measured
    planned = succeed(study, "discover", *SMALL, "plan=true").out
    assert "to build" not in planned
    assert "nothing is to be built" in planned


def test_force_builds_everything_again_and_gives_the_same(study: Path) -> None:
    before = verdict(study)
    cards = {path: path.stat().st_mtime for path in study.glob("outputs/planted/**/card.json")}
    done = succeed(study, "discover", *SMALL, "force=true")
    assert {state for _, state in done.states} == {"built"}
    assert len([stage for stage, _ in done.states if stage == "sae"]) == len(SITES)
    assert all(path.stat().st_mtime > written for path, written in cards.items())
    assert verdict(study) == before
    assert not leftovers(study)


def test_a_report_is_made_again_from_what_is_there(study: Path) -> None:
    shutil.rmtree(study / "outputs" / "planted" / "report")
    shutil.rmtree(study / "outputs" / "planted" / "visualizations")
    done = succeed(study, "discover", *SMALL)
    states = [
        ("activations", "found"),
        ("sae", "found"),
        ("quality", "found"),
        ("circuits", "found"),
        ("heatmap", "built"),
        ("report", "built"),
    ]
    assert done.states == states


@pytest.mark.slow
def test_two_processes_at_once_build_once(tmp_path: Path, study: Path) -> None:
    processes = [start(tmp_path, "discover", *SMALL) for _ in range(2)]
    results = [finish(process) for process in processes]
    assert [done.status for done in results] == [0, 0], results
    built = [line.split()[2] for done in results for line in done.out.splitlines() if line.split()[1] == "built"]
    results_built = [path for path in built if "/saes/" in path or "/circuits/" in path or "/model/" in path]
    assert len(results_built) == len(set(results_built)) == len(SITES) + 2
    assert [done.verdict for done in results] == ["monolithic"] * 2
    assert verdict(tmp_path) == verdict(study)
    assert not leftovers(tmp_path)


SIDES = ("", "_safe", "_hard", "_toxic")
MEASURED = ("transfer.h5", *(f"attribution{side}.h5" for side in SIDES))


@pytest.mark.slow
def test_every_artifact_has_its_name(tmp_path: Path) -> None:
    options = ("sampler=uniform", "circuits=ig", "circuits.separate_safe_toxic=true")
    thresholds = ("circuits.node_threshold=0.1", "circuits.edge_threshold=0.01")
    quick = [option for option in SMALL if option != "logger=none"]  # W&B as it comes, offline
    succeed(tmp_path, "discover", *options, *thresholds, *quick, "circuits.steps=3")
    home = tmp_path / "outputs" / "planted"
    assert {path.name for path in (home / "data_analysis").iterdir()} == {
        *("data_split_analysis.png", "data_split_statistics.json")
    }
    (store,) = [path.parent for path in home.glob("activations/*/manifest.json")]
    assert ActivationStore(store).manifest["sites"] == list(SITES)
    assert len(list(store.glob("shard-*.h5"))) == 27  # 3 folds x 3 splits x 3 categories
    for site in SITES:
        (sae,) = [path for path in (home / "saes" / site).iterdir() if path.is_dir()]
        assert sae.name.startswith("topk-")
        assert {path.name for path in sae.iterdir()} == {
            *("cfg.json", "sae.safetensors", "history.json", "training_plots", "card.json")
        }
    (circuits,) = [path for path in (home / "circuits").iterdir() if path.is_dir()]
    categories = ("hate", "privacy", "violence")
    named = {f"planted_{category}{side}_circuit.json" for category in categories for side in SIDES}
    expected = {*named, "planted_comparison.json", "features.json", "verdict.json", "card.json", *MEASURED}
    assert {path.name for path in circuits.iterdir()} == expected
    circuit = load_circuit(circuits / "planted_hate_circuit.json")
    assert (circuit.method, circuit.has_circuit) == ("ig", True)
    assert {path.name for path in (home / "visualizations" / "similarity_heatmaps").glob("*.png")} == {
        "planted_similarity_heatmap.png",
        "planted_safe_toxic_separate_heatmap.png",
        "planted_safe_vs_toxic_cross_heatmap.png",
    }
    report = home / "report"
    assert {"verdict.json", "report.html", "report.md", "studies"} <= {path.name for path in report.iterdir()}
    assert (report / "studies" / circuits.name / "verdict.json").read_bytes() == (report / "verdict.json").read_bytes()
    said = verdict(tmp_path)
    wanted = "schema_version verdict index ci_low ci_high layer explained_share readings groups effective_circuits p "
    assert set(f"{wanted} score_auc refusal_rate n model data seed fingerprint".split()) <= set(said)
    assert set(said["readings"]) == {"direct", "circuit", "window"}
    assert said["fingerprint"] == circuits.name
    assert json.loads((circuits / "card.json").read_text())["config"]["circuits"]["edge_threshold"] == 0.01
    assert list((tmp_path / "outputs" / "wandb").glob("offline-run-*"))
    assert not leftovers(tmp_path)


def test_the_report_is_made_again_where_the_autoencoders_are_measured_otherwise(study: Path, tmp_path: Path) -> None:
    here = Path(shutil.copytree(study, tmp_path / "study"))
    home = here / "outputs" / "planted"
    (measured,) = (home / "quality").glob("*/quality.json")
    assert list(json.loads(measured.read_text())["saes"]) == list(SITES)
    done = succeed(here, "discover", *SMALL, "quality.max_prompts=9")
    assert done.states[2:] == [("quality", "built"), ("circuits", "found"), ("heatmap", "found"), ("report", "built")]
    assert "9 held-out prompts" in (home / "report" / "report.md").read_text(encoding="utf-8")


def test_the_report_is_made_again_without_texts(study: Path, tmp_path: Path) -> None:
    here = Path(shutil.copytree(study, tmp_path / "study"))
    page = here / "outputs" / "planted" / "report" / "report.html"
    assert '"tokens":[' in page.read_text(encoding="utf-8")
    done = succeed(here, "discover", *SMALL, "report.texts=false")
    assert done.states[-1] == ("report", "built")
    assert '"tokens":[' not in page.read_text(encoding="utf-8")
