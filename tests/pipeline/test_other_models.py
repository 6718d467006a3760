"""Any folder with a chat model, any folder with the three CSV files: planted otherwise, and given under other names.

The model's folder says nothing of what it is but ``truth.json``, which only this test reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from refusal.models.planted import TEMPLATE
from refusal.models.planted_plan import Plan
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import CATEGORIES
from tests.pipeline.whole import QUICK, leftovers, succeed, verdict, write_csvs, write_model

PAIRS = tuple(zip(CATEGORIES[::2], CATEGORIES[1::2], strict=True))
SYSTEM = "<user> <end> " + TEMPLATE.replace(" <assistant>", " <end> <user> <assistant>")


@dataclass(frozen=True)
class Case:
    """A model, the prompts for it, and the answer."""

    plan: Plan
    answer: str
    folder: str
    categories: Sequence[str] = CATEGORIES
    words: int = 11
    n: int = 24
    layers: str = "every"
    template: str = TEMPLATE
    mark: str = ""
    line_break: str = "\n"
    options: tuple[str, ...] = ()


FIRST_CASE = Case(
    Plan(modularity=0.6, n_layers=5, decision_layer=3, groups=PAIRS[:2], decoy=1.0, seed=7),
    "mixed",
    "Some Model (v2)",
    categories=CATEGORIES[:4],
    n=16,
    layers="sparse",
    template=SYSTEM,
    mark="\ufeff",
    line_break="\r\n",
    options=("experiment=orbench_balanced",),
)
CASES = [
    Case(Plan(modularity=0.0, n_layers=9, decision_layer=3, decoy=2.0, seed=21), "monolithic", "model.bin", words=2),
    Case(Plan(modularity=1.0, n_layers=8, decision_layer=5, noise=0.1, seed=22), "modular", "m", template=SYSTEM),
    Case(Plan(modularity=0.5, n_layers=12, decision_layer=6, seed=23), "mixed", "0", mark="\ufeff", words=4),
    Case(Plan(modularity=1.0, n_layers=7, decision_layer=2, groups=PAIRS, decoy=0.5, seed=24), "modular", "tärka"),
    Case(Plan(modularity=0.0, n_layers=5, decision_layer=2, noise=0.2, seed=25), "monolithic", "a", line_break="\r\n"),
    Case(
        *(Plan(modularity=0.5, n_layers=10, decision_layer=7, decoy=1.0, seed=26), "mixed", "x y"),
        categories=CATEGORIES[3:9],
        options=("experiment=orbench_separate_circuits", "data.max_per_category=20"),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(FIRST_CASE, id="first"),
        *(pytest.param(case, id=str(case.plan.seed)) for case in CASES),
    ],
)
def test_the_answer_is_the_planted_one(case: Case, tmp_path: Path) -> None:
    vocabulary = make_vocabulary(case.words, case.categories)
    truth = write_model(tmp_path / case.folder, vocabulary, case.plan, case.template)
    prompts = planted_prompts(vocabulary, n_safe=case.n, n_hard=case.n, n_toxic=case.n, seed=case.words)
    broken = [
        prompt if i % 5 else replace(prompt, text=prompt.text.replace(" ", "\n", 1)) for i, prompt in enumerate(prompts)
    ]
    write_csvs(tmp_path / "my prompts", broken, mark=case.mark, line_break=case.line_break)
    done = succeed(
        *(tmp_path, "discover", "model=local", f'model.path="{case.folder}"', "data=orbench"),
        *('data.dir="my prompts"', f"layers={case.layers}", "circuits.min_per_category=5", *QUICK, *case.options),
    )
    (report,) = tmp_path.glob("outputs/*/report/verdict.json")
    said = verdict(tmp_path, report.parents[1].name)
    assert said["index"] == pytest.approx(truth["index"], abs=0.1)
    assert (said["verdict"], done.verdict) == (case.answer, case.answer)
    assert said["n"].keys() == set(case.categories)
    assert said["data"] == "orbench"
    assert not leftovers(tmp_path)
