"""Names, folders and fingerprints of a study, without running anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from refusal import InputError, stages
from refusal.config.options import from_config, register
from refusal.config.schemas import Options
from refusal.models.sites import Site
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.sae.training.scope import WHOLE, SaeKey
from refusal.study import Study
from tests.commands import ROOT
from tests.pipeline.whole import write_csvs

SITE = Site("mlp", 1)
SAE = SaeKey(SITE, WHOLE, 0)
CATEGORIES = ("hate", "privacy", "violence")
SMALL = ("data.n_safe=4", "data.n_hard=4", "data.n_toxic=4", "data.categories=[hate,privacy]", "layers=mlp_1")

Make = Callable[..., Study]


@pytest.fixture(scope="module", autouse=True)
def composing() -> Iterator[None]:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str, script: str = "discover") -> Study:
        return Study(options(overrides, script))

    return make


@cache
def options(overrides: tuple[str, ...], script: str) -> Options:
    """What a command line says; many tests begin with the same."""
    return from_config(compose(script, overrides=[*overrides]))


def folders(study: Study) -> dict[str, str]:
    """The names that carry fingerprints."""
    return {"store": study.store.name, "sae": study.sae(study.read_with(SITE)).name, "circuits": study.circuits.name}


# --- names and folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "planted"),
        (("model.modularity=0.5",), "planted_m0.5"),
        (("model.modularity=1",), "planted_m1"),
        (("model.name=mine",), "mine"),
        (("model=local", "model.path=some/where/chat-model"), "chat-model"),
        (("model=local", "model.path=some/where/", "model.name=other"), "other"),
        (("model=llama2_7b",), "llama2_7b"),
    ],
)
def test_the_model_names_its_folder(make: Make, overrides: tuple[str, ...], name: str) -> None:
    assert make(*overrides).folder == Path("outputs") / name


def test_a_name_is_a_single_safe_path_component(make: Make) -> None:
    study = make("model=local", "model.path=m", "model.name='../../etc/x y'")
    assert study.folder.parent == Path("outputs")
    assert not set(study.name) & set("/ ")
    assert not study.name.startswith(".")


def test_folders_are_those_of_the_design(make: Make) -> None:
    study = make(*SMALL, "output_dir=elsewhere")
    home = Path("elsewhere/planted")
    assert study.data_analysis == home / "data_analysis"
    assert study.store.parent == home / "activations"
    assert study.sae(SAE).parent == home / "saes" / "mlp_1"
    assert study.sae(SAE).name.startswith("topk-")
    assert study.circuits.parent == home / "circuits"
    assert study.visualizations == home / "visualizations" / "similarity_heatmaps"
    assert study.report == home / "report"
    assert study.study_report == home / "report" / "studies" / study.circuits.name
    assert [len(name.rpartition("-")[2]) for name in folders(study).values()] == [12, 12, 12]


# --- fingerprints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        *("output_dir=elsewhere", "collect.token_budget=64", "model.device=cuda", "model.attn_implementation=eager"),
        "shard=2/3",
        *("sae.also_seeds=[1]", "sae.at_once=2", "trainer=sites"),
        *("model.device_map=auto", "model.padding_side=right"),
        *("trainer=cpu", "trainer.devices=2", "trainer.enable_progress_bar=true", "logger=none", "callbacks=none"),
        *("train_saes=false", "plan=true", "force=true", "model.name=other", "sae.seed=0", "sae.k=8"),
        *("sae.hidden_dim=512", "data.max_per_category=50", "circuits.permutations=10000", "launcher=basic"),
        "data.categories=[privacy,hate]",
    ],
)
def test_what_changes_no_content_changes_no_fingerprint(make: Make, override: str) -> None:
    assert folders(make(*SMALL, override)) == folders(make(*SMALL))


def test_a_chat_template_counts_by_its_text(make: Make, tmp_path: Path) -> None:
    def with_template(name: str, text: str) -> dict[str, str]:
        (tmp_path / name).write_text(text)
        return folders(make(*SMALL, f"model.chat_template={tmp_path / name}"))

    one = with_template("a.jinja", "one")
    assert one == with_template("b.jinja", "one")
    assert not set(one.items()) & set(with_template("c.jinja", "two").items())
    assert not set(one.items()) & set(folders(make(*SMALL)).items())


def test_the_command_changes_no_fingerprint(make: Make) -> None:
    assert folders(make(*SMALL, script="train")) == folders(make(*SMALL, script="discover"))


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        *((override, "store sae circuits") for override in ("seed=1", "model.modularity=0.5", "model.n_layers=5")),
        *((override, "store sae circuits") for override in ("model.decoy=1", "model.noise=0.1", "data.n_toxic=5")),
        *((override, "store sae circuits") for override in ("data.categories=[hate]", "data.max_per_category=3")),
        *((override, "store sae circuits") for override in ("data.augment=[case]", "data.augment=[case,politeness]")),
        *((override, "store sae circuits") for override in ("model.system_prompt=hi", "model.dtype=bfloat16")),
        ("model.thinking=true", "store sae circuits"),
        *((override, "store sae circuits") for override in ("model.refusal_tokens=[5]", "model.response_tokens=3")),
        *((override, "store sae circuits") for override in ("model.refusal_phrases=[No]", "collect.max_rows=100")),
        *((override, "store sae circuits") for override in ("collect.writes=false", "collect.store_dtype=bfloat16")),
        *((override, "sae circuits") for override in ("sae.k=9", "sae.hidden_dim=511", "sae.lr=1e-3", "sae.epochs=1")),
        *((override, "sae circuits") for override in ("sae.batch_size=64", "sae.max_rows=9", "sae.seed=5")),
        *((override, "sae circuits") for override in ("sampler=uniform", "sampler.toxic_fraction=0.4")),
        *((override, "sae circuits") for override in ("sampler.last_fraction=0.5", "sampler.kinds=[]")),
        ("trainer.precision=bf16-mixed", "sae circuits"),
        ("sae.scope=safe_toxic", "sae circuits"),
        *((override, "circuits") for override in ("circuits=ig", "circuits.node_threshold=0.2")),
        *((override, "circuits") for override in ("circuits.separate_safe_toxic=true", "circuits.bootstrap=3")),
        ("layers=mlp_1-2", "store circuits"),
    ],
)
def test_what_changes_the_content_changes_the_fingerprints_from_there_on(
    make: Make, override: str, changed: str
) -> None:
    before, after = folders(make(*SMALL)), folders(make(*SMALL, override))
    assert {name for name in before if before[name] != after[name]} == set(changed.split())


def test_a_planted_model_with_other_words_is_another(make: Make) -> None:
    three = make(*SMALL, "data.categories=[hate,privacy,violence]")
    assert make(*SMALL).source != three.source
    assert make(*SMALL).source == make(*SMALL, "layers=every", "data.n_safe=5").source
    assert make(*SMALL, "data.categories=[privacy,hate]").vocabulary == make(*SMALL).vocabulary


def _local(folder: Path) -> tuple[str, ...]:
    return (
        "model=local",
        f"model.path={folder / 'model'}",
        "data=orbench",
        f"data.dir={folder / 'data'}",
        "layers=mlp_1",
    )


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with what looks like a model, and prompts."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "hidden_size": 64}))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    write_csvs(tmp_path / "data", planted_prompts(make_vocabulary(0, CATEGORIES), n_safe=4, n_hard=4, n_toxic=4))
    return tmp_path


def test_files_count_by_content_and_not_by_place(make: Make, given: Path) -> None:
    before = folders(make(*_local(given)))
    shutil.copytree(given, given / "elsewhere")
    assert folders(make(*_local(given / "elsewhere"))) == before
    (given / "model" / "README.md").write_text("words")
    assert folders(make(*_local(given))) == before
    (given / "model" / "chat_template.jinja").write_text("{{ messages }}")
    templated = folders(make(*_local(given)))
    assert not set(templated.values()) & set(before.values())
    (given / "model" / "model.safetensors").write_bytes(b"Weights")
    assert not set(folders(make(*_local(given))).values()) & {*before.values(), *templated.values()}
    (given / "model" / "model.safetensors").write_bytes(b"weights")
    (given / "model" / "chat_template.jinja").unlink()
    assert folders(make(*_local(given))) == before
    with (given / "data" / "or-bench-toxic.csv").open("a") as file:
        file.write("one more,hate\n")
    assert not set(folders(make(*_local(given))).values()) & set(before.values())


def test_a_hub_model_is_known_by_its_commit(make: Make, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(source: str, name: str, revision: str | None) -> str:
        asked.append((source, revision))
        return str(given / commit / name)

    asked: list[tuple[str, str | None]] = []
    for commit in ("c1", "c2"):
        (given / commit).mkdir()
        (given / commit / "config.json").write_text(json.dumps({"n_layer": 3, "n_embd": 64}))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    commit = "c1"
    hub = ("model=smollm2_135m", "data=orbench", f"data.dir={given / 'data'}", "layers=mlp_1")
    first, tagged = make(*hub), make(*hub, "model.revision=v1")
    assert (first.revision, tagged.revision) == ("c1", "c1")
    assert folders(first) == folders(tagged)
    assert asked == [("HuggingFaceTB/SmolLM2-135M-Instruct", None), ("HuggingFaceTB/SmolLM2-135M-Instruct", "v1")]
    commit = "c2"
    assert not set(folders(make(*hub)).values()) & set(folders(first).values())


# --- what is there ------------------------------------------------------------------------------------------


def _store(study: Study, sites: Sequence[str], content: str | None = None) -> Path:
    """Write the manifest of a finished store."""
    folder = study.folder / "activations" / ("store of " + " ".join(sites))
    folder.mkdir(parents=True)
    (folder / "shard-0000.h5").write_text("")
    manifest = {"content": content or study.content, "sites": list(sites), "shards": [{"file": "shard-0000.h5"}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_store_with_more_sites_is_used(make: Make) -> None:
    own = make(*SMALL).store
    _store(make(*SMALL), ["mlp_0", "mlp_2"])
    _store(make(*SMALL), ["mlp_1", "residuals_1"], content="of others")
    assert make(*SMALL).store == own
    larger = _store(make(*SMALL), ["mlp_0", "mlp_1", "mlp_2"])
    assert make(*SMALL).store == larger
    assert make(*SMALL).has_store()
    assert make(*SMALL, "layers=mlp_1-3").store not in (own, larger)
    assert folders(make(*SMALL))["sae"] == make(*SMALL, "layers=mlp_1-3").sae(SAE).name
    assert make(*SMALL, "force=true").store == own  # what is built again has its own name
    (larger / "shard-0000.h5").unlink()
    assert not make(*SMALL).has_store()


def test_what_is_older_than_the_process_is_built_again_by_force(make: Make) -> None:
    study = make(*SMALL)
    card = study.sae(SAE) / "card.json"
    assert not study.has_sae(SAE)
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    forced = make(*SMALL, "force=true")
    assert study.has_sae(SAE)
    assert forced.has_sae(SAE)  # written since: another job of this multirun made it
    os.utime(card, (1, 1))
    assert study.has_sae(SAE)
    assert not forced.has_sae(SAE)
    assert make(*SMALL, "force=true", "train_saes=false").has_sae(SAE)


# --- prompts and recipe -------------------------------------------------------------------------------------


def test_prompts_are_drawn_before_they_are_put_into_folds(make: Make) -> None:
    study = make("data.categories=[hate,privacy]", "data.max_per_category=9")
    counts = [sum(p.fold == fold for p in study.prompts) for fold in ("calibration", "train", "heldout")]
    assert counts == [18, 18, 18]  # 2 categories x 3 splits x 9 prompts, a third each
    assert make("data=orbench_mini", "data.max_per_category=2").prompts


def test_other_data_may_bring_categories_of_their_own(make: Make, given: Path) -> None:
    vocabulary = make_vocabulary(0, ("hate", "weapons"))
    write_csvs(given / "data", planted_prompts(vocabulary, n_safe=4, n_hard=4, n_toxic=4))
    with pytest.raises(InputError, match="unknown category 'weapons'"):
        _ = make(*_local(given)).prompts
    assert {p.category for p in make(*_local(given), "data.categories=[hate,weapons]").prompts} == {"hate", "weapons"}


def test_a_table_has_categories_of_its_own(make: Make, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,topic,bad\n" + "".join(f"How {i}?,weapons,{i % 2}\n" for i in range(6)))
    columns = "++data.columns={prompt: text, category: topic, split: bad}"
    study = make("data=csv", "data.path=t.csv", columns, "++data.split_values={1: toxic, 0: safe}")
    assert [(p.category, p.split) for p in study.prompts] == [("weapons", "safe"), ("weapons", "toxic")] * 3


def test_augmentation_leaves_the_originals_as_they_are(make: Make) -> None:
    given = ("data=orbench_mini", "data.max_per_category=6", "data.focus=[hate]")
    plain, more = make(*given).prompts, make(*given, "data.augment=[case,punctuation]").prompts
    assert more[: len(plain)] == plain
    fold_of = {prompt.id: prompt.fold for prompt in plain}
    assert {fold_of[p.source] == p.fold for p in more[len(plain) :]} == {True}
    assert {p.variant.partition("_")[0] for p in more} == {"", "case", "punctuation"}
    assert {p.category for p in plain if sum(q.category == p.category for q in plain) > 18} == {"hate"}


@pytest.mark.parametrize(
    ("layers", "sites"),
    [
        ("layers.names=[residuals_all,mlp_1]", ["residuals_0", "mlp_1", "residuals_1", "residuals_2", "residuals_3"]),
        ("layers=residuals_0-2", ["residuals_0", "residuals_1", "residuals_2"]),
        ("layers=sparse", ["residuals_0", "residuals_1", "residuals_2", "residuals_3"]),
    ],
)
def test_layers_by_name(make: Make, layers: str, sites: list[str]) -> None:
    assert [str(site) for site in make("model.n_layers=4", layers).sites] == sites


def test_the_recipe_has_its_sizes(make: Make) -> None:
    recipe = make("seed=3").recipe  # 4 x 128; 128 / 32 is under 8; 128 / 2
    assert (recipe["hidden_dim"], recipe["seed"]) == (512, 3)
    assert recipe["options"] == {"k": 8, "aux_k": 64, "aux_coefficient": 1 / 32}
    recipe = make("sae.hidden_dim=16384", "sae.k=9", "sae.aux_k=7", "sae.seed=4", "seed=3").recipe
    assert (recipe["hidden_dim"], recipe["seed"]) == (16384, 4)
    assert (recipe["options"]["k"], recipe["options"]["aux_k"]) == (9, 7)
    assert make("sae.expansion_factor=8", "sae.k_percent=1").recipe["options"]["k"] == 10  # of 1,024


def test_the_parts_of_a_scope_share_the_rows_so_that_every_scope_costs_the_same(make: Make) -> None:
    assert make("sae.max_rows=1000").recipe["max_rows"] == 1000
    assert make("sae.max_rows=1000", "sae.scope=safe_toxic").recipe["max_rows"] == 500
    assert make("sae.max_rows=1000", "sae.scope=category", "data.categories=[a,b,c,d]").recipe["max_rows"] == 250


# --- where the model runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_gpus", "overrides", "expected"),
    [
        (4, ("shard=3/16",), "cuda:2"),
        (4, ("shard=6/16",), "cuda:1"),
        (1, ("shard=6/16",), "cuda:0"),
        (0, ("shard=6/16",), "auto"),
        (4, (), "auto"),
        (4, ("shard=3/16", "model.device=cpu"), "cpu"),
        (4, ("shard=3/16", "model.device_map=auto"), "auto"),
    ],
)
def test_the_parts_of_a_collection_take_the_gpus_by_turns(
    make: Make, monkeypatch: pytest.MonkeyPatch, n_gpus: int, overrides: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)  # GPUs cannot be had here
    assert stages.device_of(make(*SMALL, *overrides)) == expected


def test_kinds_of_rows_that_the_collection_leaves_out_are_found_before_it(make: Make) -> None:
    study = make("collect.positions=[last]", "sampler.kinds=[template]")
    with pytest.raises(InputError, match=r"sampler\.kinds asks for template rows.*collect\.positions"):
        _ = study.training
    assert make("collect.positions=[last]", "sampler.kinds=[]").training
