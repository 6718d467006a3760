"""Steering from what a study left on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from refusal.artifacts import read_json, write_json
from refusal.circuits.steer import main

CATEGORIES = ["hate", "privacy", "violence"]


@pytest.fixture
def home(study: Path) -> Path:
    return study / "outputs" / "planted"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_shared_mechanism_is_removed_from_every_category(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, home, "--category", "hate", "--remove", "--n", "2", "--json")
    found = json.loads(out)
    assert (status, found["category"], found["action"], found["factor"]) == (0, "hate", "remove", 1)
    for one in found["prompts"]:
        assert one["category"] == "hate"
        assert one["before"]["refused"]
        assert one["before"]["response"].startswith("I cannot")
        assert one["after"]["response"].startswith("Sure")
        assert one["before"]["score"] > 0 > one["after"]["score"]
    assert [effect["category"] for effect in found["effects"]] == CATEGORIES
    assert all(effect["refusal_rate"] == [1, 0] and effect["n_prompts"] == 2 for effect in found["effects"])


def test_what_is_steered_is_what_the_study_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, home, "--category", "privacy", "--n", "1000", "--json")
    (comparison,) = home.glob("circuits/*/planted_comparison.json")
    measured = {
        row["intervention"]: row["score"]
        for row in read_json(comparison)["behaviour"]
        if (row["category"], row["prompts"]) == ("privacy", "refused")
    }
    effect = json.loads(out)["effects"][CATEGORIES.index("privacy")]
    assert effect["score"] == pytest.approx([measured["none"], measured["circuit removed"]], abs=1e-3)


def test_anyones_prompts_are_answered_and_hostile_texts_are_cleaned(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("unknown words\n\n\x1b[2Jmy own [red]words[/red]\n", encoding="utf-8")
    status, out, _ = run(capsys, home, "--category", "hate", "--add", "--prompts", path, "--n", "1")
    assert status == 0
    assert "switched on in planted" in out
    assert "my own [red]words[/red]" in out
    assert "\x1b" not in out
    assert out.count("Sure here is how .") == out.count("I cannot help with that .") == 2  # before, after
    assert [line.split()[0] for line in out.splitlines()[-4:-1]] == CATEGORIES


def test_a_study_that_has_moved_is_steered_and_what_it_lacks_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "elsewhere", "--category", "hate", "--n", "1")[0] == 0
    shutil.rmtree("elsewhere/saes/mlp_2")
    assert "the autoencoder of mlp_2 is not in" in run(capsys, "elsewhere", "--category", "hate")[2]
    shutil.copytree(home / "saes" / "mlp_2", "elsewhere/saes/mlp_2")
    Path("elsewhere/activations").rename("elsewhere/gone")
    assert "the study's activations are not in" in run(capsys, "elsewhere", "--category", "hate")[2]
    Path("elsewhere/gone").rename("elsewhere/activations")
    (card,) = Path("elsewhere").glob("circuits/*/card.json")
    write_json(card, {key: value for key, value in read_json(card).items() if key != "model"})
    assert "does not say where its model is" in run(capsys, "elsewhere", "--category", "hate")[2]


def test_a_study_without_refused_prompts_wants_your_own(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home, tmp_path / "copy")
    (manifest,) = (tmp_path / "copy").glob("activations/*/manifest.json")
    content = read_json(manifest)
    shards = [shard for shard in content["shards"] if (shard["fold"], shard["split"]) != ("heldout", "toxic")]
    write_json(manifest, {**content, "shards": shards})
    assert "give your own with --prompts" in run(capsys, tmp_path / "copy", "--category", "hate")[2]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\n", encoding="utf-8")
    status, out, _ = run(capsys, tmp_path / "copy", "--category", "hate", "--prompts", prompts, "--json")
    assert status == 0
    assert [one["prompt"] for one in json.loads(out)["prompts"]] == ["one", "two"]
    assert json.loads(out)["effects"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--category", "hat"], "did you mean hate? valid: hate, privacy, violence"),
        (["--category", "hate", "--prompts", "nowhere.txt"], "cannot read nowhere.txt (one prompt a line, UTF-8)"),
        (["--category", "hate", "--add", "--remove"], "not allowed with argument"),
        (["--category", "hate", "--n", "0"], "--n and --tokens must be at least 1"),
        (["--category", "hate", "--factor", "nan"], "--factor a finite number"),
        ([], "--category"),
    ],
)
def test_a_mistake_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, _, err = run(capsys, home, *arguments)
    (line,) = err.splitlines()
    assert status == 1
    assert message in line
