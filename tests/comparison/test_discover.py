"""One study of a planted model from its activations to files; and what is said where there is nothing to compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from refusal import InputError
from refusal.activations.store import ActivationStore
from refusal.circuits.attribution import atp
from refusal.circuits.circuit import load_circuit
from refusal.circuits.importances import load_attribution
from refusal.comparison.discover import discover
from refusal.comparison.findings import findings
from refusal.comparison.material import Settings
from refusal.comparison.measured import load_measured
from refusal.models.planted_plan import Plan
from refusal.models.refusal_score import REFUSAL_PHRASES
from refusal.models.sites import parse_site
from refusal.prompts.prompt import CATEGORIES, SPLITS
from tests.circuits.linear import HandSae
from tests.comparison.planted_study import PlantedStudy, plant

CHOSEN = CATEGORIES[:3]
SETTINGS = Settings(
    method="atp",
    node_threshold=0.1,
    edge_threshold=0.01,
    top_n_per_layer=20,
    separate_safe_toxic=False,
    positions="last",
    baseline="mean",
    min_per_category=5,
    permutations=99,
    bootstrap=100,
    seed=0,
)


class Store(ActivationStore):
    """What a collection would hold of a planted study."""

    def __init__(self, study: PlantedStudy, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        contrast, prompts = study.contrast, study.prompts
        rates = {"safe": 0.0, "hard": 0.0, "toxic": 1.0}
        self.manifest = {"score_auc": 1.0, "refusal_rate": rates, "labels": "phrases"}
        self.manifest |= {"phrases": list(REFUSAL_PHRASES), "response_tokens": 16}
        self.refusal_tokens, self.max_prompt_tokens = list(study.knock_outs.tokens), None
        texts = ("id", "text", "category", "split", "variant")
        columns = {name: [getattr(prompt, name) for prompt in prompts] for name in texts}
        labels = dict.fromkeys(("refused", "by_phrases", "by_score"), contrast.refused)
        folds = np.array(["train", "heldout"])[contrast.half]
        table = change(pd.DataFrame({**columns, **labels, "fold": folds, "refusal_score": contrast.score}))
        self._table = table.reset_index(drop=True)
        self._writes = contrast.writes[table.index]

    def writes(self) -> np.ndarray:
        return self._writes


def exact_sae(d_model: int) -> HandSae:
    """Both signs of every coordinate: no error, nothing merged."""
    both = np.concatenate([np.eye(d_model), -np.eye(d_model)])
    return HandSae(both.T, both)


@pytest.fixture(scope="module")
def study() -> PlantedStudy:
    return plant(Plan(modularity=0.0, n_layers=4), categories=CHOSEN, n=12)


def run(
    study: PlantedStudy,
    folder: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table,
    **settings: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the verdict and the comparison, read back from strict JSON."""
    saes = {parse_site(name): exact_sae(study.chat.d_model) for name in SITES}
    verdict = discover(
        study.chat,
        Store(study, change),
        saes,
        folder,
        model="planted",
        data="words",
        fingerprint="0" * 12,
        settings=replace(SETTINGS, **settings),
        attribute=atp.attribute,
    )

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = [json.loads((folder / name).read_text(), parse_constant=refuse) for name in ("verdict.json", FILE)]
    assert found[0] == json.loads(json.dumps(verdict))
    return found[0], found[1]


FILE = "planted_comparison.json"
SITES = ("mlp_2", "residuals_2")


@pytest.fixture(scope="module")
def whole(study: PlantedStudy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, dict]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(study, folder, separate_safe_toxic=True)


def test_a_shared_direction_is_monolithic(whole: tuple[Path, dict, dict]) -> None:
    _, verdict, _ = whole
    assert (verdict["verdict"], verdict["layer"]) == ("monolithic", 2)
    assert verdict["index"] == pytest.approx(1, abs=0.05)
    assert verdict["ci_low"] < verdict["index"] < verdict["ci_high"]
    assert verdict["explained_share"] == pytest.approx(1, abs=0.1)
    assert verdict["controls"]["random_share"] == pytest.approx(0, abs=0.1)
    assert verdict["groups"] == [sorted(CHOSEN)]
    assert verdict["effective_circuits"] == pytest.approx(1, abs=0.1)
    assert verdict["votes"] == sorted(CHOSEN)
    assert (verdict["model"], verdict["data"], verdict["seed"]) == ("planted", "words", 0)


def test_all_readings_agree(whole: tuple[Path, dict, dict]) -> None:
    _, verdict, _ = whole
    for name in ("direct", "circuit", "window"):
        assert verdict["readings"][name]["index"] == pytest.approx(1, abs=0.1), name


def test_only_component_writes_of_voting_blocks_vote(whole: tuple[Path, dict, dict]) -> None:
    _, _, comparison = whole
    assert [(s["site"], s["votes"], s["biased"]) for s in comparison["sites"]] == [
        ("mlp_2", True, False),
        ("residuals_2", False, True),
    ]
    assert comparison["combined"]["sites"] == ["mlp_2"]


def test_files_can_be_read_back(whole: tuple[Path, dict, dict]) -> None:
    folder, _, comparison = whole
    circuits = [load_circuit(path) for path in sorted(folder.glob("*circuit*.json"))]
    assert {(c.category, c.side) for c in circuits} == {(c, s) for c in CHOSEN for s in ("all", *SPLITS)}
    attribution = load_attribution(folder / "attribution.h5")
    assert len(attribution.prompt_ids) == sum(counts["used"] for counts in comparison["counts"].values()) == 3 * 3 * 12


def again(folder: Path, study: PlantedStudy, **changes: Any) -> dict[str, Any]:
    """What is found when the study on disk is compared again, without its model."""
    sae = exact_sae(study.chat.d_model)
    directions = {parse_site(name): sae.directions.numpy() for name in SITES}
    with_sides = (folder / "attribution_hard.h5").is_file()
    measured = load_measured(folder, directions, dict.fromkeys(SPLITS, directions) if with_sides else {})
    return json.loads(json.dumps(findings(measured, replace(measured.how, **changes))))


def test_what_was_measured_gives_the_same_comparison_again(study: PlantedStudy, whole: tuple[Path, dict, dict]) -> None:
    folder, _, comparison = whole
    found = again(folder, study)
    assert found == {name: comparison[name] for name in found}
    assert set(found) == {"transfer", "sites", "combined", "tests", "separate"}


def test_other_thresholds_change_what_follows_from_them(study: PlantedStudy, whole: tuple[Path, dict, dict]) -> None:
    folder, _, comparison = whole
    found = again(folder, study, node_threshold=1.0, permutations=9)
    measures, before = (of["sites"][SITES.index("residuals_2")]["measures"] for of in (found, comparison))
    assert measures["cosine"]["matrix"] == before["cosine"]["matrix"]
    assert measures["node_jaccard"]["matrix"] != before["node_jaccard"]["matrix"]
    p = found["tests"]["distinguishable"]["p"]
    assert p * 10 == pytest.approx(round(p * 10))  # (1 + b) / (1 + 9)
    assert found["transfer"] == comparison["transfer"]


def test_a_study_without_an_index_can_be_compared_again(study: PlantedStudy, tmp_path: Path) -> None:
    _, comparison = run(study, tmp_path, refuse_nothing_in(*CHOSEN[1:]))
    found = again(tmp_path, study)
    assert found == {name: comparison[name] for name in found}


def test_a_damaged_file_of_what_was_measured_is_one_line(study: PlantedStudy, tmp_path: Path) -> None:
    run(study, tmp_path)
    path = tmp_path / "transfer.h5"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"transfer\.h5 is damaged; delete it, or rebuild it with force=true"):
        again(tmp_path, study)
    path.unlink()
    with pytest.raises(InputError, match=r"there is no .*transfer\.h5; rebuild it with force=true"):
        again(tmp_path, study)


def test_over_refusal_is_compared_where_hard_prompts_are_refused(study: PlantedStudy, tmp_path: Path) -> None:
    def over_refusing(table: pd.DataFrame) -> pd.DataFrame:
        first_of_toxic = table["split"].eq("toxic") & (table.groupby(["category", "split", "fold"]).cumcount() < 3)
        return table.assign(split=table["split"].mask(first_of_toxic, "hard"))

    _, comparison = run(study, tmp_path, over_refusing, separate_safe_toxic=True)
    separate = comparison["separate"]
    assert np.diag(separate["over_refusal"]["matrix"]).min() > 0.95  # hard prompts that are toxic ones in truth
    assert separate["over_refusal"]["p"] <= 0.02


def refuse_nothing_in(*categories: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(refused=table["refused"] & ~table["category"].isin(categories))


def test_a_category_that_was_never_refused_has_no_vote(study: PlantedStudy, tmp_path: Path) -> None:
    verdict, comparison = run(study, tmp_path, refuse_nothing_in(CHOSEN[0]), separate_safe_toxic=True)
    assert verdict["verdict"] == "monolithic"
    assert verdict["votes"] == sorted(CHOSEN[1:])
    row = comparison["categories"].index(CHOSEN[0])
    assert comparison["counts"][CHOSEN[0]]["refused"] == 0
    assert comparison["transfer"]["direct"]["matrix"][row][row] is None


@pytest.mark.parametrize(
    ("change", "settings", "reason"),
    [
        (lambda table: table[table["category"] == CHOSEN[0]], {}, "only one category has enough"),
        (refuse_nothing_in(*CHOSEN[1:]), {}, "only one category has enough"),
        (lambda table: table, {"min_per_category": 1000}, "no category has enough"),
    ],
    ids=["one category", "one refused", "too few prompts"],
)
def test_without_two_voting_categories_it_is_inconclusive(
    study: PlantedStudy, tmp_path: Path, change: Any, settings: dict[str, Any], reason: str
) -> None:
    verdict, comparison = run(study, tmp_path, change, **settings)
    assert verdict["verdict"] == "inconclusive"
    assert verdict["reason"].startswith(reason)
    assert verdict["index"] is verdict["ci_low"] is verdict["layer"] is verdict["explained_share"] is None
    assert comparison["transfer"] == {"direct": None, "circuit": None, "window": None}


def test_labels_that_mean_nothing_are_inconclusive(study: PlantedStudy, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).permutation(study.contrast.refused)
    verdict, _ = run(study, tmp_path, lambda table: table.assign(refused=labels))
    assert verdict["verdict"] == "inconclusive"
