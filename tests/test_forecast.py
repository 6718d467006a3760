"""What ``plan=true`` says of a collection, and what then happens."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from refusal import InputError, pipeline
from refusal.activations import plan
from refusal.activations.store import ActivationStore
from refusal.config.schemas import Options
from tests.test_study import composing, options

__all__ = ["composing"]
SMALL = ("data.n_safe=4", "data.n_hard=4", "data.n_toxic=6", "data.categories=[hate,privacy]", "layers=mlp_1")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.chdir(tmp_path)
    return options(SMALL, "collect")


def said(planned: str) -> dict[str, str]:
    """The lines of a plan by their first word."""
    return dict(line.split(maxsplit=1) for line in planned.splitlines())


def test_rows_are_those_of_the_run_and_time_and_memory_are_measured(small: Options) -> None:
    lines = said(pipeline.plan(small))
    store = ActivationStore(pipeline.collect(small))
    n_rows = sum(shard.n_rows for shard in store.shards)
    assert lines["rows"] == f"{n_rows:,} of prompts at each site, in {len(store.shards)} shards"
    assert "measured on" in lines["memory"]
    assert "measured on" in lines["time"]
    assert said(pipeline.plan(small))["estimates"] == "nothing is to be built"


@pytest.mark.usefixtures("small")
def test_rows_of_responses_are_an_upper_bound() -> None:
    lines = said(pipeline.plan(options((*SMALL, "collect.response_positions=3"), "collect")))
    assert "and at most 84 of responses" in lines["rows"]
    assert "at most" in lines["disk"]


def test_what_an_earlier_run_left_is_counted(small: Options) -> None:
    store = pipeline.collect(small)
    (store / "manifest.json").unlink()
    next(store.glob("shard-*.h5")).unlink()
    n_shards = said(pipeline.plan(small))["rows"].split()[-2]
    assert said(pipeline.plan(small))["begun"].startswith(f"{int(n_shards) - 1} of {n_shards} shards are there")


def test_without_weights_rows_are_counted_and_nothing_is_measured(small: Options, tmp_path: Path) -> None:
    expected = said(pipeline.plan(small))
    (folder,) = (tmp_path / "outputs" / "planted" / "model").glob("[!.]*")
    shutil.move(folder / "model.safetensors", tmp_path)
    local = ("model=local", f"model.path={folder}", "data=planted", *SMALL)
    lines = said(pipeline.plan(options(local, "collect")))
    assert lines["rows"] == expected["rows"]
    assert lines["memory,"].startswith("time   not measured: the weights")


def test_what_does_not_fit_is_said_and_does_not_start(small: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "FREE_SHARE", 0.0)  # stands for a full disk, which cannot be had here
    lines = said(pipeline.plan(small))
    assert "the activations need" in lines["does"]
    with pytest.raises(InputError, match="the activations need"):
        pipeline.collect(small)
    assert not list(Path("outputs").rglob("shard-*"))


@pytest.mark.usefixtures("small")
def test_training_and_discovery_are_called_guesses() -> None:
    assert "training, measuring and discovery" in said(pipeline.plan(options(SMALL, "discover")))["guessed"]


@pytest.mark.usefixtures("small")
def test_measuring_runs_the_model_for_each_site_and_each_autoencoder() -> None:
    sites = ("layers=mlp_1-2", "sae.also_seeds=[1]", "quality.max_prompts=5")
    measuring = said(pipeline.plan(options((*SMALL[:-1], *sites), "train")))["measuring"]
    assert measuring.startswith("7 runs of the model on 5 held-out prompts: ")  # 1 as it is, 2 sites, 4 autoencoders
    assert "measuring" not in said(pipeline.plan(options((*SMALL, "quality.max_prompts=0"), "train")))
    assert "measuring" not in said(pipeline.plan(options(SMALL, "collect")))


@pytest.mark.usefixtures("small")
def test_what_is_trained_together_is_told_with_its_steps() -> None:
    sizes = ("sae.scope=safe_toxic", "sae.also_seeds=[1]", "sae.batch_size=16", "sae.epochs=1", "layers=mlp_1-2")
    planned = pipeline.plan(options((*SMALL, *sizes), "train"))
    lines = said(planned)
    assert lines["autoencoders"].endswith("batches of 16; one for each of safe, toxic; from seeds 0, 1")
    assert sum(line.startswith("sae ") for line in planned.splitlines()) == 8
    n_rows = int(lines["rows"].split()[0])
    # a prompt of a fold to train on has n_rows / 28 rows; 2 categories x (4 safe, 4 hard, 6 toxic), a third held out
    by_hand = [math.ceil(n_rows / 28 * n / 16) for n in (12, 8)]
    assert lines["together"] == f"4 in {by_hand[0]} steps, 4 in {by_hand[1]} steps"
    one_by_one = said(pipeline.plan(options((*SMALL, *sizes, "sae.at_once=1"), "train")))["together"]
    assert one_by_one == ", ".join([f"1 in {by_hand[0]} steps"] * 4 + [f"1 in {by_hand[1]} steps"] * 4)
