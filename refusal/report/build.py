"""Build the report of a finished study from its files, without a model: ``python -m refusal.report.build FOLDER``.

FOLDER is a model's folder (``outputs/planted``), or one study of it (``outputs/planted/report/studies/<fingerprint>``).
Written beside ``verdict.json``: ``report.html`` (one file, works offline), ``report.md``, and its ``figures/``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from refusal.arguments import Parser, command
from refusal.artifacts import write_atomic
from refusal.progress import say
from refusal.report.audit import audit_sections
from refusal.report.evidence import INDEX_PNG, evidence_sections
from refusal.report.heatmaps import draw_heatmaps
from refusal.report.index_by_layer import index_figure
from refusal.report.page import render
from refusal.report.recovered import recovered_figure
from refusal.report.saes import RECOVERED_PNG
from refusal.report.study import Folders, Study, find, read_study
from refusal.style import save_png

FIGURES = "figures"


def build(
    report: Path,
    circuits: Path,
    *,
    data_analysis: Path | None = None,
    saes: Sequence[Path] = (),
    store: Path | None = None,
    quality: Path | None = None,
    command: str | None = None,
    texts: bool = True,
) -> Path:
    """Write ``report.html``, ``report.md`` and ``figures/`` into ``report``, and return the path of the first.

    Args:
        report: The folder with ``verdict.json``.
        circuits: The folder with the comparison and the circuits' files.
        data_analysis: The folder with ``data_split_statistics.json``.
        saes: The folders of the SAEs that the study used, each ``saes/<site>/<name>-<fingerprint>``.
        store: The store of the activations, whose responses are shown where labels disagree.
        quality: The folder with ``quality.json``.
        command: The command that made the study; by default the one that the verdict or the circuits' card records.
        texts: Whether prompts and responses are in the report.

    Raises:
        InputError: A file is missing or damaged, or the disk refuses to write.
    """
    study = read_study(Folders(Path(report), Path(circuits), data_analysis, tuple(saes), store, quality))
    pictures = _pictures(study, Path(report) / FIGURES)
    made_by = command or study.verdict.get("command") or study.card.get("command") or _command(study)
    rebuild = f"python -m refusal.report.build {shlex.quote(str(_kept(Path(report), Path(circuits))))}"
    rebuild += "" if texts else " --no-texts"
    sections = [
        *evidence_sections(study, pictures, texts=texts),
        *audit_sections(study, made_by, rebuild, texts=texts),
    ]
    for name, content in render(study, sections).items():
        write_atomic(Path(report) / name, content)
    return Path(report) / "report.html"


def _pictures(study: Study, folder: Path) -> dict[str, str]:
    """Draw what the Markdown page shows; the file names relative to it, by kind of picture."""
    figure = index_figure(study.comparison)
    if figure is not None:
        save_png(figure, folder / INDEX_PNG)
    figure = recovered_figure((study.quality or {}).get("saes") or {})
    if figure is not None:
        save_png(figure, folder / RECOVERED_PNG)
    paths = draw_heatmaps(study.comparison, folder)
    return dict(zip(("similarity", "separate", "cross"), (path.name for path in paths), strict=False))


def _kept(report: Path, circuits: Path) -> Path:
    """Where the report will lie for good: a study's folder is built under a temporary name beside it."""
    return report.parent / circuits.name if report.parent.name == "studies" else report


def _command(study: Study) -> str:
    """The command with what the verdict knows of it."""
    return f"python discover.py model.name={shlex.quote(str(study.verdict['model']))} seed={study.verdict['seed']}"


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command line; return the exit status."""
    parser = Parser("refusal.report.build", "Build the report of a finished study from its files.")
    parser.add_argument("folder", type=Path, help="a model's folder, such as outputs/planted, or one study of it")
    parser.add_argument("--no-texts", action="store_true", help="leave prompts and responses out of the report")
    options = parser.parse_args(arguments)
    found = find(options.folder)
    path = build(
        found.report,
        found.circuits,
        data_analysis=found.data_analysis,
        saes=found.saes,
        store=found.store,
        quality=found.quality,
        texts=not options.no_texts,
    )
    say("report", "built", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
