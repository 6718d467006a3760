"""Split statistics of a data set: a figure, a JSON file, and a warning for each category with few toxic prompts.

Run it as ``python -m refusal.prompts.analyze``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.artifacts import write_atomic, write_json
from refusal.progress import say, warn
from refusal.prompts.figure import png, split_figure
from refusal.prompts.harmbench import KINDS, read_harmbench
from refusal.prompts.mini import mini_folder
from refusal.prompts.orbench import FILES, read_orbench
from refusal.prompts.prompt import Prompt
from refusal.prompts.statistics import TOXIC_PERCENT, split_statistics
from refusal.prompts.table import FIELDS, read_table
from refusal.prompts.xstest import read_xstest

FIGURE = "data_split_analysis.png"
STATISTICS = "data_split_statistics.json"
DESCRIPTION = f"""\
Count the prompts of each category and split, draw them, and warn where under {TOXIC_PERCENT}% are toxic.

reads:   {", ".join(FILES.values())}; or a file of XSTest or HarmBench, or your own table
writes:  {STATISTICS}, {FIGURE}
"""
EXAMPLES = """\
examples:
  python -m refusal.prompts.analyze
  python -m refusal.prompts.analyze --output outputs/or_bench_mini
  python -m refusal.prompts.analyze --data-dir refusal/prompts/or_bench_mini --output outputs/my_data
"""


def analyze(prompts: Sequence[Prompt], folder: Path) -> dict[str, Any]:
    """Write the statistics and their figure into a folder, warn, and return the statistics.

    Raises:
        InputError: There are no prompts, or the disk refuses.
    """
    if not prompts:
        raise InputError("there are no prompts to analyze")
    statistics = split_statistics(prompts)
    write_json(folder / STATISTICS, statistics)
    write_atomic(folder / FIGURE, png(split_figure(statistics)))
    for name in (STATISTICS, FIGURE):
        say("data", "built", folder / name)
    for line in statistics["warnings"]:
        warn(line)
    return statistics


def _parser() -> Parser:
    parser = Parser("refusal.prompts.analyze", DESCRIPTION, EXAMPLES)
    data = parser.add_mutually_exclusive_group()
    data.add_argument(
        "--data-dir",
        type=Path,
        default=mini_folder(),
        metavar="DIR",
        help="the folder with the three CSV files (default: the part of OR-Bench that comes with the package)",
    )
    data.add_argument("--xstest", type=Path, metavar="FILE", help="XSTest's file instead")
    data.add_argument("--harmbench", type=Path, metavar="FILE", help="a file of HarmBench's behaviours instead")
    data.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help=f"a table with the columns {', '.join(FIELDS)} instead (docs/data.md)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/data_analysis"),
        metavar="DIR",
        help="the folder for the statistics and the figure (default: %(default)s)",
    )
    return parser


def _read(options: argparse.Namespace) -> list[Prompt]:
    if options.xstest:
        return read_xstest(options.xstest)
    if options.harmbench:
        return read_harmbench(options.harmbench, kinds=KINDS)
    if options.table:
        usual = {name: name for name in FIELDS}
        return read_table(options.table, columns=usual, category=None, split=None, split_values={})
    return read_orbench(options.data_dir)


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    analyze(_read(options), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
