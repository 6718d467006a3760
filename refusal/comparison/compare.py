"""Compare studies from disk, without a model: ``python -m refusal.comparison.compare STUDY [STUDY]``.

One study is compared again, with other thresholds where they are given. Two studies, such as a model and its fine-tune,
are put side by side: the difference of their indices, with a bootstrap over the prompts that is paired by prompt, and
how far their circuits recur. A STUDY is a model's folder, one of report/studies in it, or one of circuits.

Examples:
    python -m refusal.comparison.compare outputs/planted --node-threshold 0.2 --permutations 100000
    python -m refusal.comparison.compare outputs/planted/circuits/0123456789ab --out again.json
    python -m refusal.comparison.compare outputs/llama3_8b outputs/llama3_8b_tuned
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.artifacts import read_json, write_json
from refusal.circuits.finished import Finished, finished

if TYPE_CHECKING:
    import numpy as np

    from refusal.comparison.measured import Measured
    from refusal.models.sites import Site

COUNTED = ("schema_version", "model", "data", "fingerprint", "categories", "voting", "counts", "refusal_by_split")
COUNTED += ("n_layers", "last_voting_layer")
"""What the study's own comparison says whatever the thresholds."""


def compare_again(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return what ``{model}_comparison.json`` would say of transfer, similarities and tests.

    Args:
        folder: The study's.
        **changes: Fields of :class:`~refusal.comparison.measured.Comparing` that shall differ from the study's own.

    Raises:
        InputError: Something of the study is missing or damaged.
    """
    from refusal.comparison.findings import findings

    study = finished(folder)
    measured = _load(study)
    how = replace(measured.how, **changes)
    own = read_json(next(iter(sorted(study.circuits.glob("*_comparison.json")))))
    return {**{name: own[name] for name in COUNTED}, **asdict(how), **findings(measured, how)}


def compare_two(first: Path, second: Path, **changes: Any) -> dict[str, Any]:
    """Return how two studies differ; see :mod:`refusal.comparison.difference`.

    Args:
        first: The one that the difference is measured from.
        second: The other.
        **changes: ``bootstrap`` or ``seed``, where they shall differ from the first study's own.

    Raises:
        InputError: Something of a study is missing or damaged, or their prompts do not match.
    """
    from refusal.comparison.difference import difference

    studies = [finished(folder) for folder in (first, second)]
    verdicts = [read_json(study.circuits / "verdict.json") for study in studies]
    one, other = (_load(study) for study in studies)
    how = replace(one.how, **changes)
    said = ("model", "fingerprint", "verdict", "index", "ci_low", "ci_high", "layer")
    return {
        "studies": [{name: verdict[name] for name in said} for verdict in verdicts],
        "verdicts_differ": verdicts[0]["verdict"] != verdicts[1]["verdict"],
        "bootstrap": how.bootstrap,
        "seed": how.seed,
        **difference(one, other, bootstrap=how.bootstrap, seed=how.seed),
    }


def _load(study: Finished) -> Measured:
    """Read what a study measured, and the decoder directions of its autoencoders."""
    from refusal.comparison.measured import load_measured
    from refusal.models.sites import parse_site
    from refusal.sae.files import load_sae

    wanted = [study.card.get("saes") or {}, *(study.card.get("side_saes") or {}).values()]
    for names, there in zip(wanted, [study.saes, *study.side_saes.values()], strict=True):
        for site in names.keys() - there.keys():
            folder = study.home / "saes" / site / names[site]
            raise InputError(f"there is no autoencoder in {folder}; run discover.py again")

    read = cache(lambda folder: load_sae(folder).directions.numpy())

    def directions(folders: Mapping[str, Path]) -> dict[Site, np.ndarray]:
        return {parse_site(site): read(folder) for site, folder in folders.items()}

    by_side = {side: directions(folders) for side, folders in study.side_saes.items()}
    return load_measured(study.circuits, directions(study.saes), by_side)


def _print_again(found: Mapping[str, Any]) -> None:
    """Print the similarities and tests of one study."""
    n_prompts = sum(counts["used"] for counts in found["counts"].values())
    print(f"{found['model']} ({found['fingerprint']}): {len(found['categories'])} categories, {n_prompts} prompts")
    for name, reading in found["transfer"].items():
        print(f"{name:8s} {_index(reading, reading['start']) if reading else 'not measured'}")
    print(f"similarity of two categories, on average (node threshold {found['node_threshold']:g})")
    together = f"together: {', '.join(found['combined']['sites'])}"
    for site, of_site in {**{s["site"]: s for s in found["sites"]}, together: found["combined"]}.items():
        figures = [f"{name} {_number(_off_diagonal(m['matrix']))}" for name, m in of_site["measures"].items()]
        print(f"  {site}: {', '.join(figures)}")
    print(f"tests ({found['permutations']} permutations)")
    for name, test in found["tests"].items():
        print(f"  {name}: statistic {_number(test['statistic'])}, p = {_p(test['p'])}")
    separate = found["separate"] or {}
    for name, title in {"cross": "safe against toxic", "over_refusal": "over-refusal against toxic"}.items():
        if name in separate:
            matrix, p = separate[name]["matrix"], separate[name]["p"]
            print(f"  {title}: cosine {_number(_mean([row[i] for i, row in enumerate(matrix)]))}, p = {_p(p)}")


def _print_two(found: Mapping[str, Any]) -> None:
    """Print the difference of two studies."""
    for study, index in zip(found["studies"], found["indices"], strict=True):
        headline = {"index": study["index"], "low": study["ci_low"], "high": study["ci_high"]}
        name = f"{study['model']} ({study['fingerprint']})"
        print(f"{name}: {study['verdict']}, {_index(headline, study['layer'])}; on what both share {_number(index)}")
    prompts = found["prompts"]
    print(f"{len(found['categories'])} categories, {prompts['drawn']} prompts that at least one refuses")
    bounds = f"{_number(found['low'])} to {_number(found['high'])}"
    says = {None: "undefined", True: "they differ", False: "no difference shown"}[found["differs"]]
    verdicts = "different verdicts" if found["verdicts_differ"] else "the same verdict"
    print(f"difference {_number(found['difference'])}, 95 % interval {bounds}: {says}; {verdicts}")
    for site, at in found["circuits"].items():
        first, second = at["features"]
        print(
            f"  {site}: {at['matched']} of {first} and {second} features match (mean cosine "
            f"{_number(at['matched_cosine'])}); circuits against themselves: cosine "
            f"{_number(_mean(at['cosine'].values()))}, net direction {_number(_mean(at['net_direction'].values()))}"
        )


def _index(reading: Mapping[str, Any], start: int | None) -> str:
    bounds = f"{_number(reading['low'])} to {_number(reading['high'])}"
    return f"index {_number(reading['index'])}, 95 % interval {bounds}, from layer {'-' if start is None else start}"


def _off_diagonal(matrix: Sequence[Sequence[float | None]]) -> float | None:
    return _mean([value for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j])


def _mean(values: Any) -> float | None:
    """Return the mean of those that are defined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.comparison.compare", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="one, or two to put side by side")
    parser.add_argument("--node-threshold", type=float, help="share of the strongest feature that makes a node")
    parser.add_argument("--permutations", type=int, help="of the tests")
    parser.add_argument("--bootstrap", type=int, help="replicates behind an interval")
    parser.add_argument("--seed", type=int, help="of permutations and bootstrap")
    parser.add_argument("--out", type=Path, help="a JSON file to write it all to")
    options = parser.parse_args(arguments)
    changes = {name: getattr(options, name) for name in ("node_threshold", "permutations", "bootstrap", "seed")}
    changes = {name: value for name, value in changes.items() if value is not None}
    _check(changes)
    if len(options.studies) > 2:
        parser.error(f"{len(options.studies)} studies: name one, or two")
    if len(options.studies) == 1:
        found = compare_again(*options.studies, **changes)
        _print_again(found)
    else:
        if {"node_threshold", "permutations"} & changes.keys():
            parser.error("--node-threshold and --permutations are for one study")
        found = compare_two(*options.studies, **changes)
        _print_two(found)
    if options.out is not None:
        write_json(options.out, found)
    return 0


def _check(changes: Mapping[str, Any]) -> None:
    if not 0 < changes.get("node_threshold", 0.5) <= 1:
        raise InputError(f"--node-threshold {changes['node_threshold']:g} is a share: above 0, at most 1")
    for name, least in {"permutations": 1, "bootstrap": 1, "seed": 0}.items():
        if changes.get(name, least) < least:
            raise InputError(f"--{name} {changes[name]}: must be at least {least}")


if __name__ == "__main__":
    sys.exit(main())
