"""Show what a store of activations holds, and check that it is whole: ``python -m refusal.activations.inspect PATH``.

PATH is a store (``outputs/planted/activations/<fingerprint>``), a model's outputs folder (every store in it), or one
shard. The exit status is 1 where anything is not as it was written, with a line for each such thing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from refusal.activations.inspection import Inspection, Norms, find_stores, inspect_store
from refusal.activations.shard import SECTIONS
from refusal.arguments import Parser, command
from refusal.models.sites import parse_site
from refusal.prompts.prompt import SPLITS
from refusal.terminal import page, plain, print_table

DESCRIPTION = "Show what a store of activations holds: shards, strata, norms, labels; and compare every checksum."
EXAMPLES = """\
examples:
  python -m refusal.activations.inspect outputs/planted
  python -m refusal.activations.inspect outputs/planted --fast
  python -m refusal.activations.inspect outputs/planted/activations/*/shard-0000-*.h5
"""
MOST_FAILED = 20  # that are listed


def show(inspection: Inspection, console: Console) -> None:
    """Print an inspection."""
    console.print(_headline(inspection), soft_wrap=True)
    shards = inspection.shards
    sections = [name for name in SECTIONS if any(name in shard.sections for shard in shards)]
    rows = [
        [shard.file, shard.category, shard.split, shard.fold, f"{shard.n_prompts:,}"]
        + [f"{shard.sections.get(name, 0):,}" for name in sections]
        + [f"{shard.n_bytes:,}", " ".join(filter(None, (shard.dtype, shard.compression)))]
        for shard in shards
    ]
    headers = ["shard", "category", "split", "fold", "prompts", *sections, "bytes", "stored as"]
    print_table(console, headers, rows, words=(0, 1, 2, 3, len(headers) - 1))
    print_table(console, ["stratum", "shards", "prompts", "rows", "bytes"], _strata(inspection), words=(0,))
    if inspection.norms:
        headers = ["site", "rows", *(f"{name} norm" for name in ("mean", "median", "largest")), "NaN or infinite"]
        print_table(console, headers, _norms(inspection), words=(0, 1))
    if inspection.labels:
        print_table(console, ["refused", *SPLITS], _refused(inspection), words=(0,))
    console.print(_remarks(inspection), soft_wrap=True)


def _headline(inspection: Inspection) -> str:
    found, planned = len(inspection.shards), inspection.n_planned
    if not inspection.is_finished:
        return f"{inspection.path}\nunfinished: {found} of {planned} shards"
    return f"{inspection.path}\n{found} of {planned} shard{'s' if planned > 1 else ''}"


def _strata(inspection: Inspection) -> list[list[str]]:
    """A line for each split and category, and one for all."""
    sums: dict[str, list[int]] = {}
    for shard in sorted(inspection.shards, key=lambda shard: (_place(shard.split), shard.category)):
        for name in (f"{shard.split} {shard.category}", "all"):
            total = sums.setdefault(name, [0, 0, 0, 0])
            for i, figure in enumerate((1, shard.n_prompts, shard.n_rows, shard.n_bytes)):
                total[i] += figure
    return [[name, *(f"{figure:,}" for figure in sums[name])] for name in sorted(sums, key=lambda name: name == "all")]


def _place(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _norms(inspection: Inspection) -> list[list[str]]:
    def line(site: str, which: str, norms: Norms) -> list[str]:
        figures = (norms.mean, norms.median, norms.largest) if norms.n_rows else (None,) * 3
        return [site, which, *("–" if x is None else f"{x:.4g}" for x in figures), str(norms.n_bad)]

    return [
        line(site if which == "last" else "", which, norms)
        for site in sorted(inspection.norms, key=parse_site)
        for which, norms in zip(("last", "others"), inspection.norms[site], strict=True)
    ]


def _refused(inspection: Inspection) -> list[list[str]]:
    """A line a category: how many of a split's prompts were refused."""
    rows = []
    for category in (*sorted({category for category, _ in inspection.labels}), None):
        cells = []
        for split in SPLITS:
            found = [
                labels for key, labels in inspection.labels.items() if key[1] == split and category in (key[0], None)
            ]
            refused, total = sum(labels.n_refused for labels in found), sum(labels.n_prompts for labels in found)
            cells.append(f"{refused} of {total} ({refused / total:.0%})" if total else "–")
        rows.append(["all" if category is None else category, *cells])
    return rows


def _remarks(inspection: Inspection) -> str:
    lines = []
    if inspection.agreement is not None:
        lines.append(f"phrases and log-odds agree on {inspection.agreement:.1%} of the prompts")
    lines.append(f"truncated prompts: {inspection.n_truncated}; failed prompts: {len(inspection.failed)}")
    lines += [f"  {prompt_id}: {why}" for prompt_id, why in inspection.failed[:MOST_FAILED]]
    if len(inspection.failed) > MOST_FAILED:
        lines.append(f"  and {len(inspection.failed) - MOST_FAILED} more")
    if inspection.problems:
        lines.append(f"problems: {len(inspection.problems)}")
    else:
        lines.append("every checksum is right" if inspection.has_values else "the structure is right; values not read")
    return plain("\n".join(lines))


def _parser() -> Parser:
    parser = Parser("refusal.activations.inspect", DESCRIPTION, EXAMPLES)
    parser.add_argument("path", type=Path, help="a store, a model's outputs folder, or one shard")
    parser.add_argument(
        "--fast", action="store_true", help="check the structure only: no activations are read, no checksums compared"
    )
    return parser


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    console = page()
    options = _parser().parse_args(arguments)
    inspections = [inspect_store(path, values=not options.fast) for path in find_stores(options.path)]
    for inspection in inspections:
        show(inspection, console)
    problems = [problem for inspection in inspections for problem in inspection.problems]
    for problem in problems:
        print(f"error: {plain(str(problem))}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
