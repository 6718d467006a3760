"""The three scripts run in this process, with a pipeline that only pretends: its artefacts are small and made up."""

from __future__ import annotations

import json
import logging
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

import refusal
from refusal import InputError
from refusal.callbacks import outcome
from refusal.circuits.circuit import Circuit, Node, save_circuit
from refusal.config.schemas import Options

ROOT = Path(__file__).parents[1]
MATRIX = [[1.0, 0.9], [0.8, 1.0]]
VERDICT = {
    "verdict": "monolithic",
    "index": 0.98,
    "ci_low": 0.9,
    "ci_high": 1.0,
    "layer": 2,
    "explained_share": 0.96,
    "model": "planted",
    "groups": [["hate", "fraud"]],
    "votes": ["hate", "fraud"],
}


class Locations(NamedTuple):
    """As ``pipeline.locations`` returns."""

    model_dir: Path
    data_analysis: Path
    store: Path
    saes: dict[str, Path]
    quality: Path
    circuits: Path
    visualizations: Path
    report: Path
    study_report: Path


@dataclass
class Pretended:
    """What the pretended pipeline was asked to do, and what it should fail at."""

    calls: list[tuple[str, Options]] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The stages, in the order in which they were called."""
        return [name for name, _ in self.calls]

    @property
    def options(self) -> Options:
        """What the newest stage was given."""
        return self.calls[-1][1]

    def _called(self, name: str, options: Options) -> Locations:
        self.calls.append((name, options))
        failure = self.failures.get(name) or self.failures.get(f"{name} {sites(options)[0]}")
        if failure is not None:
            raise failure
        return locations(options)

    def collect(self, options: Options) -> Path:
        places = self._called("collect", options)
        _picture(places.data_analysis / "data_split_analysis.png")
        return places.store

    def train(self, options: Options) -> dict[str, Path]:
        places = self._called("train", options)
        for layer, (site, folder) in enumerate(places.saes.items()):
            figures = {"fvu": 0.1 + layer, "explained_variance": 0.9, "l0": 8.0, "dead_fraction": 0.0, "cosine": 0.99}
            own = {"model": "planted", "site": site.partition("-")[0], "hidden_dim": 64, "k": 8, "train": []}
            _json(folder / "history.json", {**own, "heldout": {"all": figures, "last": figures}})
            _picture(folder / "training_plots" / "loss.png")
        everywhere = {"recovered_refusal": 0.7, "kl": {"spliced": 0.01}, "recovered_ce": 0.9}
        toxic = {"recovered_refusal": 0.8, "refusal_rate": {"clean": 1.0, "spliced": 0.9, "ablated": None}}
        probing = {"toxic": {"features": {"5": {"auc": 0.95}}}}
        quality = {"splice": {"all": everywhere, "splits": {"toxic": toxic}}, "probing": probing}
        _json(places.quality / "quality.json", {"saes": dict.fromkeys(places.saes, quality)})
        return places.saes

    def discover(self, options: Options) -> Path:
        places = self._called("discover", options)
        places.circuits.mkdir(parents=True, exist_ok=True)
        nodes = (Node("mlp_2", 7, 1.5, 1.0), Node("mlp_2", -1, 0.3, 0.2))
        save_circuit(places.circuits, Circuit("planted", "hate", "all", "atp", 30, True, 2.0, "f" * 12, {}, nodes))
        comparison = {
            "categories": ["hate", "fraud"],
            "voting": ["hate", "fraud"],
            "transfer": {"direct": {"matrix": MATRIX}},
            "refusal_by_split": {"safe": {"refused": 1, "total": 20}, "toxic": {"refused": 19, "total": 20}},
        }
        _json(places.circuits / "planted_comparison.json", comparison)
        _json(places.circuits / "features.json", {"prompts": [{"tokens": ["a", " prompt"]}]})
        return places.circuits

    def heatmaps(self, options: Options) -> list[Path]:
        places = self._called("heatmaps", options)
        path = places.visualizations / "similarity_heatmaps" / "planted_similarity_heatmap.png"
        _picture(path)
        return [path]

    def report(self, options: Options) -> Path:
        places = self._called("report", options)
        for folder in (places.study_report, places.report):
            _json(folder / "verdict.json", {**VERDICT, "index": 0.98 - options.seed / 10})
            _picture(folder / "figures" / "index_by_layer.png")
        return places.report

    def plan(self, options: Options) -> str:
        self._called("plan", options)
        return "would do nothing"


def sites(options: Options) -> list[str]:
    return options.layers.names or ["mlp_2"]


def locations(options: Options) -> Locations:
    home = Path(options.output_dir) / "planted"
    saes = {site: home / "saes" / site / "topk-aaaabbbbcccc" for site in sites(options)}
    circuits = home / "circuits" / "aaaabbbbcccc"
    report = home / "report"
    study = report / "studies" / "-".join([*sites(options), str(options.seed)])
    return Locations(
        home,
        home / "data_analysis",
        home / "store",
        saes,
        home / "quality",
        circuits,
        home / "visualizations",
        report,
        study,
    )


def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Put a pretended pipeline in the place of the real one."""
    pretended = Pretended()
    module = ModuleType("refusal.pipeline")
    for name in ("collect", "train", "discover", "heatmaps", "report", "plan"):
        setattr(module, name, getattr(pretended, name))
    module.locations = locations  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "refusal.pipeline", module)
    monkeypatch.setattr(refusal, "pipeline", module, raising=False)
    for name in ("steps", "tracking", "outcome"):
        if callbacks := sys.modules.get(f"refusal.callbacks.{name}"):
            monkeypatch.setattr(callbacks, "pipeline", module)
    return pretended


class Result(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of error."""
        (line,) = self.err.splitlines()
        return line


class Runner:
    """Runs a script as ``python <script>.py ...`` would, in the current folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, script: str, *arguments: str) -> Result:
        self.monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        status: Any = 0
        with _untouched_logging():
            try:
                runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
            except SystemExit as stop:
                status = stop.code
            finally:
                GlobalHydra.instance().clear()
                outcome.STARTED.clear()
        out, err = self.capsys.readouterr()
        return Result(status or 0, out, err)


@contextmanager
def _untouched_logging() -> Iterator[None]:
    """Hydra sets up the root logger with the streams of this test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level


def bad(text: str = "the data have no toxic rows") -> InputError:
    return InputError(text)


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _picture(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
