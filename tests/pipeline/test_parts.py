"""Several autoencoders a site, trained side by side, in one process or several, alone or beside another command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from refusal.comparison.compare import main
from refusal.sae.exchange.formats import Origin, write_sae
from refusal.sae.files import load_sae
from tests.callbacks.wandb_files import read_runs
from tests.pipeline.warm import Started
from tests.pipeline.whole import (
    ENVIRONMENT,
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

SPREAD = ("trainer=sites", "trainer.accelerator=cpu", "trainer.devices=2")
LONG = ("sae.epochs=10", "sae.batch_size=16", "sae.hidden_dim=64", "trainer.checkpoint_minutes=0")


pytestmark = pytest.mark.slow


@pytest.fixture
def here(study: Path, tmp_path: Path) -> Path:
    """A folder with the activations of the small study."""
    home = tmp_path / "outputs" / "planted"
    for name in ("activations", "data_analysis", "model"):
        shutil.copytree(study / "outputs" / "planted" / name, home / name)
    return tmp_path


def weights(folder: Path) -> dict[str, bytes]:
    """What was trained, by the path of the autoencoder."""
    home = folder / "outputs" / "planted" / "saes"
    return {str(path.parent.relative_to(home)): path.read_bytes() for path in home.glob("*/[!.]*/sae.safetensors")}


def hidden(folder: Path) -> list[Path]:
    """Folders of checkpoints."""
    return list((folder / "outputs" / "planted" / "saes").glob(".training-*"))


def _wait_for_checkpoints(folder: Path, process: Started) -> None:
    while not any((path / "last.ckpt").exists() for path in hidden(folder)):
        assert process.poll() is None, finish(process)
        time.sleep(0.002)


def _trainers(process: Started) -> list[int]:
    """The processes that a command has started to train in."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if _is_trainer(int(pid))]


def _is_trainer(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


# --- what is trained on what --------------------------------------------------------------------------------


def test_each_side_has_autoencoders_of_its_own(here: Path) -> None:
    done = succeed(here, "discover", *SMALL, "sae.scope=safe_toxic")
    assert done.states.count(("sae", "built")) == 2 * len(SITES)
    assert done.verdict == "monolithic"
    folders = sorted((here / "outputs" / "planted" / "saes" / "mlp_2").glob("topk-*"))
    assert [folder.name.rpartition("-")[0] for folder in folders] == ["topk-safe", "topk-toxic"]
    said = [json.loads((folder / "cfg.json").read_text()) for folder in folders]
    assert [(cfg["scope"], cfg["part"]) for cfg in said] == [("safe_toxic", "safe"), ("safe_toxic", "toxic")]
    (circuits,) = (here / "outputs" / "planted" / "circuits").glob("[!.]*")
    read_with = json.loads((circuits / "card.json").read_text())["saes"]
    assert read_with["mlp_2"] == folders[1].name
    assert verdict(here)["fingerprint"] == circuits.name
    assert succeed(here, "train", *SMALL, "sae.scope=safe_toxic").states[-2:] == [
        ("sae", "found"),
        ("quality", "found"),
    ]


def test_circuits_of_sides_are_found_with_autoencoders_of_their_own_and_matched(here: Path, tmp_path: Path) -> None:
    succeed(here, "discover", *SMALL, "sae.scope=safe_toxic", "circuits.separate_safe_toxic=true")
    home = here / "outputs" / "planted"
    (card,) = home.glob("circuits/[!.]*/card.json")
    names = {side: of_side["mlp_2"] for side, of_side in json.loads(card.read_text())["side_saes"].items()}
    assert [names[side].partition("-")[2].partition("-")[0] for side in ("safe", "hard", "toxic")] == [
        *("safe", "safe", "toxic")
    ]
    separate = json.loads((card.parent / "planted_comparison.json").read_text())["separate"]
    assert set(separate["cross"]["matched"]) == {"features", "cosine"}
    assert main([str(home), "--out", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["separate"] == separate


def test_each_category_has_autoencoders_of_its_own(here: Path) -> None:
    succeed(here, "train", *SMALL, "sae.scope=category", "sampler.category_weights.hate=2")
    folders = {
        path.name.rpartition("-")[0] for path in (here / "outputs" / "planted" / "saes" / "mlp_1").glob("topk-*")
    }
    assert folders == {"topk-hate", "topk-privacy", "topk-violence"}
    assert len(set(weights(here).values())) == 3 * len(SITES)


def test_further_seeds_are_what_they_are_alone(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = succeed(here, "train", *SMALL, "sae.also_seeds=[1]")
    assert done.states.count(("sae", "built")) == 2 * len(SITES)
    assert succeed(here, "train", *SMALL, "sae.seed=1").states[-2] == ("sae", "found")
    alone = tmp_path_factory.mktemp("alone")
    shutil.copytree(here, alone, dirs_exist_ok=True)
    shutil.rmtree(alone / "outputs" / "planted" / "saes")
    succeed(alone, "train", *SMALL, "sae.seed=1", "sae.at_once=1")
    seed_1 = weights(alone)
    assert len(seed_1) == len(SITES)
    assert seed_1.items() <= weights(here).items()


def test_autoencoders_of_others_are_taken_as_they_are(study: Path, here: Path) -> None:
    few = [option for option in SMALL if not option.startswith("sae.")]
    for site in SITES:
        (ours,) = (study / "outputs" / "planted" / "saes" / site).glob("topk-*")
        write_sae(here / "theirs" / site, load_sae(ours), Origin("planted", site), "sparsify")
    theirs = ("sae=pretrained", "sae.path='theirs/{site}'")
    done = succeed(here, "discover", *few, *theirs)
    assert done.states[:4] == [("activations", "found"), *[("sae", "built")] * len(SITES)]
    assert done.verdict == "monolithic"
    (folder,) = (here / "outputs" / "planted" / "saes" / "mlp_2").glob("pretrained-*")
    assert json.loads((folder / "history.json").read_text())["imported"] == "theirs/mlp_2"
    assert ("sae", "built") not in succeed(here, "train", *few, *theirs).states
    changed = load_sae(folder)
    changed.b_dec.data += 1.0
    shutil.rmtree(here / "theirs" / "mlp_2")
    write_sae(here / "theirs" / "mlp_2", changed, Origin("planted", "mlp_2"), "sparsify")
    done = succeed(here, "train", *few, *theirs, "sae.format=sparsify")
    assert done.states.count(("sae", "built")) == 1


# --- several processes --------------------------------------------------------------------------------------


def test_devices_share_the_autoencoders(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = tmp_path_factory.mktemp("spread")
    shutil.copytree(here, spread, dirs_exist_ok=True)
    done = succeed(spread, "train", *SMALL, *SPREAD, "logger=wandb", "logger.mode=offline")
    (run,) = read_runs(spread / "outputs")
    assert {f"{site}/{figure}" for site in SITES for figure in ("train/loss", "heldout/fvu")} <= set(run.summary)
    assert done.states == [("activations", "found"), *[("sae", "built")] * len(SITES), ("quality", "built")]
    assert done.err == ""
    monkeypatch.setitem(ENVIRONMENT, "OMP_NUM_THREADS", "1")  # as many as each of two processes has
    assert python(here, "train", *SMALL).status == 0
    assert weights(spread) == weights(here)
    assert not hidden(spread)


def test_what_fails_in_a_process_is_the_command_s_line(here: Path) -> None:
    done = command(here, "train", *SMALL, *SPREAD, "sae.lr=1e30")
    (line,) = done.err.splitlines()
    assert done.status == 1
    assert line.startswith("error: the training of ")
    assert "diverged" in line
    assert not leftovers(here)


def test_a_process_that_is_killed_ends_the_command(here: Path) -> None:
    process = start(here, "train", *SMALL, *LONG, *SPREAD)
    _wait_for_checkpoints(here, process)
    os.kill(_trainers(process)[0], signal.SIGKILL)
    done = finish(process)
    assert done.status == 1
    assert "a process of the training was killed" in done.err.splitlines()[-1]
    succeed(here, "train", *SMALL, *LONG)
    assert not leftovers(here)


def test_a_command_that_is_killed_takes_its_processes_along(here: Path) -> None:
    process = start(here, "train", *SMALL, *LONG, *SPREAD)
    _wait_for_checkpoints(here, process)
    trainers = _trainers(process)
    process.kill()
    process.wait(timeout=60)
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").is_file() and _is_trainer(pid) for pid in trainers):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_commands_with_some_autoencoders_in_common_build_each_once(here: Path) -> None:
    """One has the sites in common first, the other has them last, and each trains all of its own at once."""
    few = [option for option in SMALL if not option.startswith("layers")]
    sites = ("layers.names=[mlp_1,mlp_2]", "layers.names=[mlp_2,residuals_2]")
    done = [finish(process) for process in [start(here, "train", *few, *LONG, names) for names in sites]]
    assert [one.status for one in done] == [0, 0], done
    built = [line.split()[2] for one in done for line in one.out.splitlines() if line.startswith("sae           built")]
    assert len(built) == len(set(built)) == len(SITES)
    assert not leftovers(here)
    assert not hidden(here)


# --- killed -------------------------------------------------------------------------------------------------


def test_a_killed_training_goes_on_to_the_very_same_weights(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(here, whole, dirs_exist_ok=True)
    process = start(here, "train", *SMALL, *LONG, "sae.also_seeds=[1]")
    _wait_for_checkpoints(here, process)
    process.kill()
    assert process.wait(timeout=60) == -9
    assert leftovers(here)
    done = succeed(here, "train", *SMALL, *LONG, "sae.also_seeds=[1]")
    assert ("sae", "resumed") in done.states
    assert done.states.count(("sae", "built")) == 2 * len(SITES)
    succeed(whole, "train", *SMALL, *LONG, "sae.also_seeds=[1]")
    assert weights(here) == weights(whole)
    assert not leftovers(here)
    assert not hidden(here)
