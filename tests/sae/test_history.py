"""What the folder of an autoencoder says of it."""

from __future__ import annotations

from pathlib import Path

from refusal.artifacts import write_json
from refusal.sae.history import labels, middle, read_trained, replicates
from tests.sae.figures.made_up import history, write


def test_options_that_did_not_make_a_difference_are_no_settings(tmp_path: Path):
    one = write(tmp_path / "a", history(seed=0), seed=0, also_seeds=[1], at_once=None, lr=0.002)
    other = write(tmp_path / "b", history(seed=1), seed=1, also_seeds=[], at_once=2, lr=0.002)
    assert one.settings == other.settings
    assert replicates([one, other]) == [(one.settings, [one, other])]


def test_activations_of_other_prompts_tell_trainings_apart(tmp_path: Path):
    one, other = write(tmp_path / "a", history()), write(tmp_path / "b", history())
    card = tmp_path / "b" / "card.json"
    card.write_text(card.read_text().replace("67911d", "abcdef"))
    assert labels([one.settings, read_trained(tmp_path / "b").settings]) == ["activations 67911d", "activations abcdef"]
    assert other.settings == one.settings  # read before


def test_options_that_only_one_architecture_has_do_not_tell_it_apart():
    settings = [{"name": "topk", "k": 8, "aux_k": 4}, {"name": "jumprelu", "sae.l0_coefficient": 1.0}]
    assert labels(settings) == ["topk", "jumprelu"]


def test_a_history_alone_is_enough(tmp_path: Path):
    write_json(tmp_path / "history.json", history(part="toxic"))
    one = read_trained(tmp_path)
    assert (str(one.site), one.part, one.rows) == ("mlp_3", "toxic", 320)
    assert one.settings == {"part": "toxic", "hidden_dim": 64, "k": 8}


def test_a_figure_is_that_of_all_prompts_or_of_a_split(tmp_path: Path):
    content = history(fvu=0.2)
    content["heldout"]["splits"] = {"toxic": {"all": {"fvu": 0.4}}}
    one = write(tmp_path, content)
    assert [one.figure("fvu"), one.figure("fvu", "toxic"), one.figure("fvu", "safe")] == [0.2, 0.4, None]


def test_the_figure_of_a_part_is_that_of_its_own_prompts(tmp_path: Path):
    content = history(fvu=0.2)
    content["heldout"] |= {"splits": {"toxic": {"all": {"fvu": 0.4}}}, "categories": {"hate": {"all": {"fvu": 0.6}}}}
    parts = [write(tmp_path / part, {**content, "part": part}) for part in ("all", "toxic", "hate", "safe")]
    assert [one.figure("fvu") for one in parts] == [0.2, 0.4, 0.6, None]


def test_the_middle_is_not_moved_by_one_site_that_hardly_varies():
    assert middle([0.1, None, 0.3, 9e9]) == 0.3
    assert middle([None]) is None
