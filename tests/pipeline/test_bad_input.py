"""Every kind of bad input: one line that says what, where and what would be right; nothing half-written is left.

The scripts run in this process, one after the other, as ``python <script>.py ...`` would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refusal.models.planted_plan import Plan
from refusal.prompts.orbench import FILES
from refusal.prompts.planted import make_vocabulary, planted_prompts
from tests.commands import Runner
from tests.pipeline.whole import PLANTED, QUICK, SITES, SMALL, leftovers, write_csvs, write_model

CATEGORIES = ("hate", "privacy", "violence")
LOCAL = ("model=local", "model.path=model", "data=orbench", "data.dir=data", "layers=mlp_1", *QUICK)


class Fails:
    """Runs a command that has to fail as bad input should; returns its line."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self.runner, self.folder = runner, folder

    def __call__(self, script: str, *arguments: str) -> str:
        result = self.runner(script, *arguments)
        assert result.status == 1, result
        line = result.err.splitlines()[-1]
        assert line.startswith("error: "), result.err
        assert "Traceback" not in result.out + result.err
        assert sum(other.startswith("error") for other in result.err.splitlines()) == 1
        assert not leftovers(self.folder)
        return line.removeprefix("error: ")


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return Fails(Runner(monkeypatch, capsys), tmp_path)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model`` and ``data``, both in order."""
    folder = tmp_path_factory.mktemp("given")
    vocabulary = make_vocabulary(5, CATEGORIES)
    write_model(folder / "model", vocabulary, Plan(n_layers=4))
    write_csvs(folder / "data", planted_prompts(vocabulary, n_safe=6, n_hard=6, n_toxic=6))
    return folder


@pytest.fixture
def here(given: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    return tmp_path


# --- prompts ------------------------------------------------------------------------------------------------


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda data: (data / FILES[name]).write_text(text)


BAD_DATA: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    (shutil.rmtree, ("there is no folder data", "or-bench-80k.csv")),
    (lambda data: (data / FILES["hard"]).unlink(), ("there is no data/or-bench-hard-1k.csv",)),
    (_write("safe", ""), ("data/or-bench-80k.csv, row 1: no column prompt", "it is empty")),
    (_write("safe", "prompt,kind\na,hate\n"), ("data/or-bench-80k.csv, row 1: no column category", "prompt, kind")),
    (_write("hard", "prompt,category\na,hat\n"), ("data/or-bench-hard-1k.csv, row 2", "'hat'", "did you mean 'hate'?")),
    (_write("toxic", "prompt,category\n"), ("data/or-bench-toxic.csv has no rows",)),
    (
        lambda data: (data / FILES["toxic"]).write_bytes(b"prompt,category\n\xff,hate\n"),
        ("or-bench-toxic.csv, line 2",),
    ),
]


@pytest.mark.parametrize(("spoil", "expected"), BAD_DATA)
def test_bad_prompts(fails: Fails, here: Path, spoil: Callable[[Path], object], expected: tuple[str, ...]) -> None:
    spoil(here / "data")
    line = fails("discover", *LOCAL)
    assert all(part in line for part in expected), line
    assert {path.name for path in here.glob("outputs/*")} == {"runs"}  # nothing was begun


def test_prompts_in_words_that_the_model_does_not_know(fails: Fails) -> None:
    line = fails("discover", "data=orbench_mini", "data.max_per_category=3", "model.n_layers=3", *QUICK)
    assert line.startswith("the model never refuses: 0 of ")
    assert "choose another model, data or phrases" in line


# --- models -------------------------------------------------------------------------------------------------


def test_models_that_are_none(fails: Fails, here: Path) -> None:
    line = fails("discover", *LOCAL, "model.path=modle")
    assert line == "there is no model in modle: a model folder has a config.json (model.path=DIR)"
    assert "model has no choice 'plantd': did you mean planted" in fails("discover", "model=plantd")
    assert "model.path is missing" in fails("discover", "model=local")
    (here / "model" / "config.json").write_text("{}")
    assert "does not say how deep" in fails("discover", *LOCAL)
    (here / "model" / "config.json").write_text("{")
    assert "model/config.json is not valid JSON" in fails("discover", *LOCAL)


def test_a_model_without_weights_or_chat_template(fails: Fails, here: Path) -> None:
    weights = (here / "model" / "model.safetensors").read_bytes()
    (here / "model" / "model.safetensors").write_bytes(weights[:1000])
    assert fails("discover", *LOCAL).startswith("cannot load the model model: ")
    (here / "model" / "model.safetensors").unlink()
    assert fails("discover", *LOCAL).startswith("cannot load the model model: ")
    (here / "model" / "model.safetensors").write_bytes(weights)
    (here / "model" / "chat_template.jinja").unlink()
    line = fails("discover", *LOCAL)
    assert line == "the model model has no chat template; use a chat (instruct) model, or give model.chat_template"


def test_a_model_that_never_or_always_refuses(fails: Fails, here: Path) -> None:
    line = fails("discover", *LOCAL, "model.refusal_phrases=[Never]")
    assert line.startswith("the model never refuses: 0 of 18 prompts, by the phrases in model.refusal_phrases")
    assert "'Sure here is how .'" in line
    assert fails("discover", *LOCAL, "model.refusal_phrases=[Sure,I]").startswith("the model always refuses: 18 of 18")
    line = fails("discover", *LOCAL, "model.refusal_tokens=[100000]")
    assert line.startswith("model.refusal_tokens: 100000 is not a token of model")


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        ("collect", ("layers=residual_1",), "layers has no choice 'residual_1': did you mean residuals_1"),
        ("collect", ("layers.names=[mpl_1]",), "unknown layer 'mpl_1', did you mean mlp_1?"),
        ("train", ("layers=residuals_9",), "'residuals_9' is past the model's depth: its 4 blocks are residuals_0 to"),
        ("train", ("layers=mlp_2-9",), "'mlp_2-9' is past the model's depth: its 4 blocks are mlp_0 to mlp_3"),
        ("train", ("trainer.devices=2",), "trainer.num_nodes=1 trainer.strategy=auto: for several devices of"),
        ("train", ("sae.k=100", "sae.hidden_dim=64"), "sae.k=100 is more than sae.hidden_dim=64"),
        (
            "train",
            ("trainer.strategy=sites", "trainer.devices=none"),
            "trainer.strategy=sites takes a number of processes",
        ),
        (
            "train",
            ("sampler.category_weights.sexual=2",),
            "there are no rows of category 'sexual' to train on; there are",
        ),
        (
            "train",
            ("sae.scope=safe_toxic", "sampler=toxic_only"),
            "the autoencoder of safe: the sampler leaves no rows",
        ),
        ("train", ("trainer.precision=half",), "Lightning cannot train with these trainer options: Precision 'half'"),
        ("train", ("sae.target=pathlib.Path",), "'pathlib.Path' is not a SparseAutoencoder; one is refusal.sae."),
        (
            "train",
            ("sae.target=refusal.sae.architectures.topk.TopKK",),
            "has no attribute 'TopKK'); one is refusal.sae.architectures.topk.TopK",
        ),
        (
            "discover",
            ("circuits.target=atp",),
            "such as package.module.name; one is refusal.circuits.attribution.atp",
        ),
        (
            "discover",
            ("circuits.target=refusal.circuits.attribution.apt.attribute",),
            "circuits.target: there is no refusal.circuits.attribution.apt.attribute (No module named "
            "'refusal.circuits.attribution.apt'); one is refusal.circuits.attribution.atp.attribute",
        ),
        ("discover", ("sweep.target=refusal.sweeps.strata.compar",), "; one is refusal.sweeps.strata.compare"),
        ("discover", ("model.response_tokens=0",), "without them nothing tells what is refused"),
        ("discover", ("sae.scope=category",), "sae.scope=category is for train.py only"),
        ("discover", ("data.categories=[]",), "data.categories: no category is chosen; the data have: deception, "),
        ("discover", ("data=orbench_mini", "data.categories=[hat]"), "the category 'hat' (did you mean 'hate'?)"),
    ],
)
def test_bad_options(fails: Fails, tmp_path: Path, script: str, options: tuple[str, ...], expected: str) -> None:
    planted = [option for option in PLANTED if "orbench_mini" not in options[0] or not option.startswith("data.")]
    assert expected in fails(script, *planted, *QUICK, *options)
    assert {path.name for path in tmp_path.glob("outputs/*")} <= {"runs"}  # nothing was begun


PRETRAINED = (*PLANTED, *[option for option in QUICK if not option.startswith("sae.")], "sae=pretrained")


def test_autoencoders_that_cannot_be_taken(fails: Fails, study: Path, tmp_path: Path) -> None:
    (ours,) = (study / "outputs" / "planted" / "saes" / "mlp_1").glob("topk-*")
    shutil.copytree(ours, tmp_path / "theirs")
    both = "layers.names=[mlp_1,mlp_2]"
    assert "is one autoencoder for 2 sites: write {site} for each" in fails(
        "train", *PRETRAINED, both, "sae.path=theirs"
    )
    one = (*PRETRAINED, "layers=mlp_2")
    assert fails("train", *one, "sae.path=no") == "there is no autoencoder for mlp_2 in no (sae.path)"
    assert fails("train", *one, "sae.path=theirs").endswith("theirs is an autoencoder of mlp_1, not of mlp_2")
    (tmp_path / "empty").mkdir()
    assert "empty holds no autoencoder" in fails("train", *one, "sae.path=empty")
    assert not list(tmp_path.glob("outputs/planted/activations"))


# --- results that are not what they should be -------------------------------------------------------------------


@pytest.fixture
def done(study: Path, tmp_path: Path) -> Path:
    """A copy of the small study without its circuits: its model's folder in the outputs."""
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    home = tmp_path / "outputs" / "planted"
    shutil.rmtree(home / "circuits")
    return home


def _sae(home: Path, site: str) -> Path:
    (folder,) = [path for path in (home / "saes" / site).iterdir() if path.is_dir()]
    return folder


def test_autoencoders_of_others(fails: Fails, done: Path) -> None:
    mine, other = _sae(done, SITES[0]), _sae(done, SITES[1])
    kept = done.parent / "kept"
    shutil.copytree(mine, kept)
    shutil.copy(other / "cfg.json", mine / "cfg.json")
    shutil.copy(other / "sae.safetensors", mine / "sae.safetensors")
    line = fails("discover", *SMALL)
    assert line == f"the autoencoder in {mine.relative_to(Path.cwd())} was trained on site mlp_2, not mlp_1"
    cfg = json.loads((kept / "cfg.json").read_text())
    (mine / "cfg.json").write_text(json.dumps({**cfg, "model": "llama"}))
    assert "was trained on model llama, not planted" in fails("discover", *SMALL)
    (mine / "cfg.json").write_text(json.dumps({**cfg, "content": "0123456789ab"}))
    assert "was trained on other activations of planted; delete the folder" in fails("discover", *SMALL)
    (mine / "cfg.json").write_text(json.dumps(cfg))
    (mine / "sae.safetensors").write_bytes((kept / "sae.safetensors").read_bytes()[:5000])
    assert "sae.safetensors is damaged" in fails("discover", *SMALL)


def test_activations_cut_short(fails: Fails, done: Path) -> None:
    shards = sorted(done.glob("activations/*/shard-*.h5"))
    for shard in shards[-9:]:  # of the held-out fold
        shard.write_bytes(shard.read_bytes()[:3000])
    line = fails("discover", *SMALL)
    assert "h5 is damaged (" in line
    assert line.endswith("delete it and collect again, or rebuild everything with force=true")
    for shard in shards[-9:]:
        shard.unlink()
    result = fails.runner("discover", *SMALL)  # what the line advises
    assert (result.status, "activations   resumed" in result.out) == (0, True)


# --- disks --------------------------------------------------------------------------------------------------


def test_a_file_where_the_outputs_should_be(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    line = fails("discover", *SMALL, "output_dir=taken")
    assert line.startswith("cannot write")
    assert "taken" in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_at_each_stage(fails: Fails, study: Path, small_disk: Path) -> None:
    def fill(*, left_free: int) -> None:
        with (small_disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(small_disk).free - left_free)

    home = small_disk / "outputs" / "planted"
    full = (*SMALL, "output_dir=disk/outputs")
    expected = {
        "model": (200_000, "cannot write disk/outputs/planted/model/"),
        "activations": (100_000, "the activations need "),
        "saes": (100_000, "cannot write disk/outputs/planted/saes/mlp_1/"),
        "circuits": (100_000, "cannot write disk/outputs/planted/circuits/"),
        "report": (100_000, "cannot write disk/outputs/planted/"),
    }
    home.mkdir(parents=True)
    shutil.copytree(study / "outputs" / "planted" / "data_analysis", home / "data_analysis")
    for stage, (left_free, line) in expected.items():
        fill(left_free=left_free)
        assert line in fails("discover", *full)
        assert not leftovers(small_disk)
        (small_disk / "filler").unlink()
        shutil.rmtree(home / stage, ignore_errors=True)
        shutil.copytree(study / "outputs" / "planted" / stage, home / stage)
    assert fails.runner("discover", *full).status == 0
