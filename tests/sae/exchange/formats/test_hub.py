"""Pushing and pulling. A folder stands in for the hub, by the same code; then its transport is mocked."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from refusal.sae.architectures.topk import TopK
from refusal.sae.exchange.formats import Origin, read, read_sae, write_sae
from refusal.sae.exchange.places import Directory, Repository, place_of
from refusal.sae.files import save_sae
from refusal.sae.hub import main

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
FIGURES = {"fvu": 0.21437, "l0": 2.0, "dead_fraction": 0.0, "cosine": None}


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    sae = TopK(4, 12, 2, seed=1)
    sae.scale.fill_(0.25)
    save_sae(tmp_path / "ours", sae, model="org/chat-7b", site="mlp_3", cfg={"fingerprint": "abc"})
    history = {"heldout": {"all": FIGURES, "last": {**FIGURES, "fvu": 0.5}, "splits": {"safe": {"all": FIGURES}}}}
    (tmp_path / "ours" / "history.json").write_text(json.dumps(history))
    (tmp_path / "ours" / "card.json").write_text(json.dumps({"config": {"data": {"name": "orbench_mini"}}}))
    return tmp_path / "ours"


def test_what_is_pushed_is_pulled_unchanged(tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]):
    hub = tmp_path / "hub" / "me" / "sae"
    assert main(["push", str(ours), f"file://{hub}"]) == 0
    assert main(["pull", str(hub), str(tmp_path / "pulled")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(hub), str(tmp_path / "pulled")]
    pulled = {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()}
    assert sorted(pulled) == ["README.md", "cfg.json", "history.json", "sae.safetensors"]
    for name in ("cfg.json", "history.json", "sae.safetensors"):
        assert pulled[name] == (ours / name).read_bytes()


@pytest.mark.parametrize("name", ["sae_lens", "sparsify"])
def test_it_can_be_pushed_in_another_format(tmp_path: Path, ours: Path, name: str):
    assert main(["push", str(ours), str(tmp_path / "hub"), "--format", name]) == 0
    assert main(["pull", str(tmp_path / "hub"), str(tmp_path / "pulled")]) == 0
    sae, origin = read(tmp_path / "pulled", name)
    assert origin == Origin("org/chat-7b", "mlp_3")
    torch.testing.assert_close(sae.encode(X), read_sae(ours).encode(X))


def test_the_page_says_what_it_is_and_how_good(tmp_path: Path, ours: Path):
    assert main(["push", str(ours), str(tmp_path / "hub"), "--license", "apache-2.0"]) == 0
    page = (tmp_path / "hub" / "README.md").read_text()
    head = page.split("---\n")[1].splitlines()
    assert head == [
        'library_name: "refusal-circuits"',
        'tags: ["sparse-autoencoder", "interpretability"]',
        'license: "apache-2.0"',
        'base_model: "org/chat-7b"',
    ]
    for line in (
        "| model | org/chat-7b |",
        "| site | mlp_3: what the MLP of block 3 adds to the residual stream |",
        "| data | orbench_mini |",
        "| architecture | TopK |",
        "| features | 12 of 4 dimensions |",
        "| k | 2 |",
        "|  | all positions | last position |",
        "| fvu | 0.2144 | 0.5 |",
        "| l0 | 2 | 2 |",
        "sae = read_sae(folder)",
    ):
        assert line in page.splitlines()
    assert "recovers" not in page  # it was not measured


def test_the_page_says_what_is_left_of_refusal_if_the_study_measured_it(
    tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]
):
    level = {"clean": 1.5, "spliced": 1.25, "ablated": -1.0}
    levels = dict.fromkeys(("score", "refusal_rate", "kl", "ce"), level)
    splice = {"all": {**levels, "recovered_refusal": 0.9, "recovered_ce": None}}
    quality = tmp_path / "quality"
    quality.mkdir()
    found = {"mlp_2": {"site": "mlp_2"}, "mlp_3": {"site": "mlp_3", "splice": splice}}
    (quality / "quality.json").write_text(json.dumps({"saes": found}))
    (quality / "card.json").write_text(json.dumps({"saes": {"mlp_2": "other", "mlp_3": "ours"}}))
    arguments = ["--quality", str(quality / "quality.json")]
    assert main(["push", str(ours), str(tmp_path / "hub"), *arguments]) == 0
    page = (tmp_path / "hub" / "README.md").read_text().splitlines()
    assert "| score | 1.5 | 1.25 | -1 |" in page
    assert "It recovers 90.0% of the refusal score." in page

    shutil.copytree(ours, tmp_path / "another")
    assert main(["push", str(tmp_path / "another"), str(tmp_path / "no"), *arguments]) == 1
    assert capsys.readouterr().err.endswith("give the quality.json of its own study\n")


def test_the_page_says_what_is_not_known_and_shows_names_as_text(tmp_path: Path):
    write_sae(tmp_path / "sae", TopK(4, 12, 2), Origin("<b>|evil\nname"), "sae_lens")
    assert main(["push", str(tmp_path / "sae"), str(tmp_path / "hub"), "--format", "sae_lens"]) == 0
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "| model | \\<b\\>\\|evil name |" in page
    assert "| site | not known |" in page
    assert "Not measured." in page
    assert "license" not in page
    assert "base_model" not in page


def test_pulling_takes_the_files_of_the_format_and_no_others(tmp_path: Path, ours: Path):
    hub = tmp_path / "hub"
    shutil.copytree(ours, hub)
    (hub / "run.py").write_text("boom")
    (hub / "optimizer.pt").write_bytes(b"pickle")
    assert main(["pull", str(hub), str(tmp_path / "pulled")]) == 0
    assert sorted(path.name for path in (tmp_path / "pulled").iterdir()) == [
        "cfg.json",
        "history.json",
        "sae.safetensors",
    ]


def test_pickles_are_neither_sent_nor_fetched(tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["push", str(ours), str(tmp_path / "hub"), "--format", "dictionary_learning"]) == 1
    write_sae(tmp_path / "there", read_sae(ours), Origin(), "dictionary_learning")
    assert main(["pull", str(tmp_path / "there"), str(tmp_path / "pulled")]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert (
        first
        == "error: dictionary_learning files are pickles, which are not published; --format sae_lens is read as widely"
    )
    assert second == "error: ae.pt is a pickle, which is not fetched; fetch it yourself, and convert it"
    assert not (tmp_path / "hub").exists()


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    several = tmp_path / "several"
    for layer in range(7):
        shutil.copytree(ours, several / f"residuals_{layer}")
    damaged = tmp_path / "damaged"
    shutil.copytree(ours, damaged)
    (damaged / "sae.safetensors").write_bytes(b"no")
    before = sorted(tmp_path.rglob("*"))
    new = str(tmp_path / "new")
    for arguments, message in (
        (["push", str(ours), str(ours)], "exists already"),
        (["push", str(tmp_path / "empty"), new], "holds no autoencoder"),
        (["push", str(ours), "justaname"], "'justaname' is no repository: give OWNER/NAME"),
        (["push", str(ours), "me/../other"], "is no repository"),
        (["push", str(ours), new, "--revision", "main"], "--revision says nothing to push"),
        (["pull", new, str(tmp_path / "out")], "there is no folder"),
        (["pull", str(tmp_path / "empty"), new], "there is no autoencoder in this place"),
        (
            ["pull", str(several), new],
            "name one of residuals_0, residuals_1, residuals_2, residuals_3, residuals_4, and 2",
        ),
        (["pull", str(damaged), new], "sae.safetensors is damaged"),
        (["pull", str(ours), new, "--private"], "--private says nothing to pull"),
    ):
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_repo_is_a_path_or_a_repository_with_a_folder():
    assert place_of("file:///a/b%20c") == Directory(Path("/a/b c"))
    assert place_of("./a") == Directory(Path("a"))
    assert place_of("me/sae") == Repository("me/sae")
    assert place_of("me/sae/layer_3/x", revision="v1") == Repository("me/sae", "layer_3/x", "v1")


# --- the transport ------------------------------------------------------------------------------------


class MockedHub:
    """Stands in for the hub's client, which cannot be had without a network: one repository, in memory."""

    def __init__(self, home: Path) -> None:
        self.home, self.made = home, []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.made.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: Path, path_in_repo: str | None) -> None:
        shutil.copytree(folder_path, self.home / (path_in_repo or ""), dirs_exist_ok=True)

    def model_info(self, repo_id: str, *, revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in Directory(self.home).files()])

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert all((self.home / file).is_file() for file in allow_patterns)
        return str(self.home)


@pytest.fixture
def mocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MockedHub:
    hub = MockedHub(tmp_path / "remote")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def test_a_repository_holds_several_in_folders(tmp_path: Path, ours: Path, mocked: MockedHub):
    for site in ("mlp_3", "mlp_4"):
        assert main(["push", str(ours), f"me/saes/{site}", "--private"]) == 0
    assert mocked.made == [("me/saes", True, True)] * 2
    assert main(["pull", "me/saes/mlp_4", str(tmp_path / "pulled")]) == 0
    assert (tmp_path / "pulled" / "cfg.json").read_bytes() == (ours / "cfg.json").read_bytes()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Let the real client talk to a server of ours, which refuses all with the status and headers put in here."""
    says: dict[str, str] = {}

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = dict(says)
            self.send_response(int(headers.pop("status")))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="none")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    yield says
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("arguments", [["push", "{ours}", "me/sae"], ["pull", "me/sae", "{new}"]])
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "there is no me/sae on the hub (or it is private: `hf auth login`)"),
        (403, "GatedRepo", "me/sae is gated: accept its terms on its hub page, then `hf auth login`"),
        (404, "RevisionNotFound", "me/sae has no such revision"),
        (403, "", "the hub refuses me/sae (403 Forbidden"),
        (400, "", "the hub refuses me/sae ("),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    tmp_path: Path,
    ours: Path,
    answering: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    code: str,
    message: str,
):
    answering.update({"status": str(status), "X-Error-Code": code})
    assert main([argument.format(ours=ours, new=tmp_path / "new") for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [["push", "{ours}", "me/sae"], ["pull", "me/sae", "{new}"]])
def test_without_a_network_it_is_one_line(
    tmp_path: Path,
    ours: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
):
    """By the real client, sent to a port at which nothing listens."""
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="none")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert main([argument.format(ours=ours, new=tmp_path / "new") for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the hub cannot be reached for me/sae: ")
    assert not (tmp_path / "new").exists()
