from __future__ import annotations

import pytest
from hydra.errors import HydraException

from refusal.config.catalog import Catalog
from refusal.config.mistakes import explain
from tests.commands import ROOT, Pretended, Runner

MISTAKES = [
    (["model=plnted"], "model has no choice 'plnted': did you mean planted?"),
    (["modle=planted"], "there is no option or group 'modle': did you mean model"),
    (["sae.hiden_dim=3"], "there is no option or group 'sae.hiden_dim': did you mean sae.hidden_dim?"),
    (["hidden_dim=3"], "there is no option or group 'hidden_dim': did you mean sae.hidden_dim?"),
    (["xyz=1"], "there is no option or group 'xyz': --help lists the valid names"),
    (["+sae.foo=1"], "there is no option or group 'sae.foo'"),
    (["sae.k=abc"], "sae.k=abc is not a whole number (Active features of a row"),
    (["sae.lr=fast"], "sae.lr=fast is not a number"),
    (["force=maybe"], "force=maybe is not true or false"),
    (["output_dir=null"], "output_dir cannot be null"),
    (["data.categories=hate"], "data.categories takes a list, such as [a,b]"),
    (["circuits.baseline=maen"], "circuits.baseline has no value 'maen': did you mean mean? valid: mean, zero"),
    (["layers=residualz_3"], "layers has no choice 'residualz_3': did you mean residuals_3?"),
    (["layers=sprse"], "layers has no choice 'sprse': did you mean sparse?"),
    (["layers=[mlp_1,mlp_2]"], "layers=[mlp_1,mlp_2]: a group takes one choice, not a list"),
    (["sampler=uniform", "sampler.toxic_fraction=0.3"], "sampler.toxic_fraction is an option of sampler=weighted only"),
    (["model=local", "model.path=d", "model.modularity=1"], "model.modularity is an option of model=planted only"),
    (["experiment=orbench_ful"], "experiment has no choice 'orbench_ful': did you mean orbench_full"),
    (["data=xstest"], "data.path is missing: give data.path=... (The published file"),
    (["data.path=x"], "data.path is an option of data=csv or data=harmbench or data=xstest only"),
    (["data=csv", "data.path=x", "data.split=toxc"], "data.split has no value 'toxc': did you mean toxic?"),
    (["--hepl"], "there is no flag --hepl: did you mean --help?"),
    (["--sae.k=3"], "options are written without dashes: sae.k=3"),
    (["sae.k"], "'sae.k' is not an option: write name=value"),
    (["sae.k=1,2"], "sae.k=1,2 has several values: add -m to run each of them"),
    (["~sae.k"], "~sae.k: nothing can be taken away"),
    (["data.dir=a(b"], "data.dir=a(b cannot be read: put the value into quotes"),
    (["-m", "sae.k=8,abc"], "sae.k=abc is not a whole number"),
    (["-m", "layers=mlp_1,mpl_2"], "layers has no choice 'mpl_2': did you mean mlp_2?"),
    (["--cfg"], "argument --cfg/-c: expected one argument"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(given) for given, _ in MISTAKES])
def test_a_mistake_is_one_line_that_says_what_is_right(
    arguments: list[str], message: str, run: Runner, pipeline: Pretended
) -> None:
    result = run("train", *arguments)
    assert result.status == 1
    assert result.error.startswith(f"error: {message}")
    assert not pipeline.calls


def test_a_launcher_that_is_not_installed_says_how_to_install_it() -> None:
    error = HydraException("In 'launcher/slurm': Could not find 'hydra/launcher/slurm'\n\nAvailable options: basic")
    line = explain(error, Catalog(ROOT / "conf"), "train")
    assert line == "launcher=slurm is not installed: pip install -e '.[launchers]'"


def test_another_error_of_hydra_is_one_line_too() -> None:
    assert explain(HydraException("one\n  two\none"), Catalog(ROOT / "conf"), "train") == "one two"


def test_flags_may_stand_anywhere(run: Runner, pipeline: Pretended) -> None:
    assert run("train", "logger=none", "-m", "seed=1,2").status == 0
    assert [options.seed for _, options in pipeline.calls] == [1, 2]


def test_weights_of_categories_can_be_given(run: Runner, pipeline: Pretended) -> None:
    given = ("sampler.category_weights={hate: 2}", "sampler.category_weights.fraud=3")
    assert run("train", "logger=none", *given).status == 0
    assert pipeline.options.sampler.arguments()["category_weights"] == {"hate": 2.0, "fraud": 3.0}
