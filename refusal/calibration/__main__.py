"""Measure planted models whose truth is known, and say how right the answers are: ``python -m refusal.calibration``.

Writes models.jsonl (one line a model, from which a killed run goes on), calibration.json, calibration.md and
calibration.png. Seeds under 100 are for tuning; those from 100 on are for the claim, and for nothing else.

Examples:
    python -m refusal.calibration --quick                     6 small models, circuits on 1, in seconds
    python -m refusal.calibration --models 100 --with-circuits 20
                                                              the table of docs/calibration.md
    python -m refusal.calibration --seed 0 --out outputs/tuning
                                                              what may be looked at while something is changed
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal.arguments import Parser, command
from refusal.progress import say, track

if TYPE_CHECKING:
    from refusal.calibration.family import Member
    from refusal.calibration.ledger import Ledger

CLAIM_SEED, TUNING_SEED = 102, 3
QUICK_MODELS, QUICK_CIRCUITS, QUICK_NULLS = 6, 1, 100
NULLS = 1000


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.calibration", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("--models", type=int, metavar="N", help="models measured by the reading direct (100)")
    parser.add_argument("--with-circuits", type=int, metavar="M", help="of which so many with every method (0)")
    parser.add_argument("--quick", action="store_true", help="a small family, of a tuning seed")
    parser.add_argument("--out", type=Path, default=Path("outputs/calibration"), help="where to write")
    parser.add_argument("--seed", type=int, help=f"of the family ({CLAIM_SEED}; quick: {TUNING_SEED})")
    options = parser.parse_args(arguments)
    quick = options.quick
    n_models = options.models if options.models is not None else QUICK_MODELS if quick else 100
    n_circuits = options.with_circuits if options.with_circuits is not None else QUICK_CIRCUITS if quick else 0
    seed = options.seed if options.seed is not None else TUNING_SEED if quick else CLAIM_SEED
    if n_models < 1 or not 0 <= n_circuits <= n_models or seed < 0:
        parser.error("--models must be 1 or more, --with-circuits from 0 to --models, --seed 0 or more")
    said = f"--models {n_models} --with-circuits {n_circuits} --seed {seed}"
    calibrate(
        options.out,
        n_models=n_models,
        n_circuits=n_circuits,
        n_nulls=QUICK_NULLS if quick else NULLS,
        seed=seed,
        quick=quick,
        command=f"python -m refusal.calibration {'--quick ' if quick else ''}{said}",
    )
    return 0


def calibrate(
    out: Path, *, n_models: int, n_circuits: int, n_nulls: int, seed: int, quick: bool, command: str
) -> dict[str, Any]:
    """Measure what is not measured yet, and write the results; return the figures.

    Args:
        out: The folder.
        n_models: Models measured by ``direct``.
        n_circuits: The first so many of them, measured by every method of attribution, too.
        n_nulls: True nulls for each permutation test.
        seed: Of the family.
        quick: Whether its models are small, and no autoencoders are trained.
        command: What the page says made it.
    """
    from refusal.artifacts import write_atomic, write_json
    from refusal.calibration import direct, nodes, whole
    from refusal.calibration.family import draw_family
    from refusal.calibration.figures import confusion, direct_figures, missed, node_figures, study_figures
    from refusal.calibration.ledger import Ledger, code_version
    from refusal.calibration.nulls import NULLS, false_positives
    from refusal.calibration.page import write_page
    from refusal.calibration.picture import calibration_figure
    from refusal.style import save_png

    ledger = Ledger(out / "models.jsonl", code_version())
    family = draw_family(seed, n_models, small=quick)
    rows = _measured(ledger, "direct", family, direct.measure)
    node_rows = _measured(ledger, "nodes", family[:n_circuits], nodes.measure)
    study_rows = [] if quick else _measured(ledger, "whole", family[:n_circuits], whole.measure)
    rates = {f"false_positives_{name}": false_positives(null, seed, n_nulls) for name, null in NULLS.items()}
    figures = {**direct_figures(rows), **node_figures(node_rows), **study_figures(study_rows), **rates}
    found = {
        "seed": seed,
        "code": ledger.code,
        "nulls": n_nulls,
        "figures": figures,
        "missed": missed(figures),
        "confusion": confusion(rows),
        "models": rows,
        "nodes": node_rows,
        "studies": study_rows,
    }
    write_json(out / "calibration.json", found)
    page = write_page(found, command)
    write_atomic(out / "calibration.md", page)
    save_png(calibration_figure(rows), out / "calibration.png")
    print(page[: page.index("By kind")].replace("Verdicts", "\nVerdicts"))
    say("calibration", "built", out / "calibration.json")
    return figures


def _measured(
    ledger: Ledger, what: str, family: Sequence[Member], measure: Callable[[Member], dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    for member in track(family, f"measuring {what}"):
        key = ledger.key({"what": what, **member.written})
        if key not in ledger.lines:
            ledger.add(key, measure(member))
        rows.append({**member.written, **ledger.lines[key]})
    return rows


if __name__ == "__main__":
    sys.exit(main())
