"""Take a category's circuit out of a model, or switch it on: ``python -m refusal.circuits.steer STUDY --category C``.

Held-out prompts are answered without and with the change, side by side with the refusal score (log-odds of refusing,
nats): refused prompts where the circuit is removed, complied ones where it is added. A table says what the same change
does to the prompts of every category. A STUDY is a model's folder, one of report/studies in it, or one of circuits.

Examples:
    python -m refusal.circuits.steer outputs/planted --category hate
    python -m refusal.circuits.steer outputs/planted --category hate --add --factor 1.5 --n 4
    python -m refusal.circuits.steer outputs/planted --category hate --prompts my_prompts.txt --json
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.circuits.finished import circuits_of_study, finished
from refusal.terminal import page, plain, print_table

if TYPE_CHECKING:
    import pandas as pd


def steer_study(
    folder: Path,
    category: str,
    *,
    add: bool = False,
    factor: float = 1.0,
    prompts: Sequence[str] = (),
    n: int = 8,
    n_tokens: int = 32,
) -> dict[str, Any]:
    """Steer a study's model with one of its circuits.

    Args:
        folder: The study's.
        category: Whose circuit.
        add: Whether it is switched on, rather than taken out.
        factor: How far its nodes go to their new level; 1 is all the way.
        prompts: Texts to answer instead of held-out prompts of the category.
        n: Held-out prompts of each category.
        n_tokens: Greatest length of a response.

    Returns:
        ``model``, ``category``, ``action``, ``factor``, ``nodes``; ``prompts``, each with ``prompt`` and the answers
        ``before`` and ``after`` (``score``, ``refused``, ``response``); ``effects``, for each category ``n_prompts``
        and the pairs ``score`` and ``refusal_rate`` (before, after).

    Raises:
        InputError: There is no such circuit, or something of the study is not there.
    """
    study = finished(folder)
    (circuit,) = circuits_of_study(study, category)
    if not circuit.has_circuit:
        raise InputError(f"the effect of {category} is too small to have a circuit; choose another category")
    from refusal.circuits.restore import restore
    from refusal.circuits.steering import effects, levels, steer

    restored, sites = restore(study), {node.site for node in circuit.nodes}
    known = restored.table
    train = known[known["fold"] == "train"]
    if add:
        train = train[train["refused"] & (train["category"] == category)]
    heldout = known[(known["fold"] == "heldout") & (known["refused"] != add)].groupby("category").head(n)
    asked = _with_own(heldout, prompts, category)
    if asked.empty:
        raise InputError(f"the study has no held-out prompt that was {_did(add)}; give your own with --prompts")
    experiment, level = (restored.experiment(part, sites) for part in (asked, train))
    experiment.baseline = levels(level, sorted(set(experiment.categories)), add=add)
    steered = steer(
        experiment, asked["text"].tolist(), circuit, factor=factor, phrases=restored.phrases, n_tokens=n_tokens
    )
    own, others = steered[: len(prompts)], steered[len(prompts) :]
    shown = own or [one for one in others if one.category == category]
    return {
        "model": circuit.model,
        "category": category,
        "action": "add" if add else "remove",
        "factor": factor,
        "nodes": [node.id for node in circuit.nodes],
        "prompts": [one.to_json() for one in shown],
        "effects": [effect.to_json() for effect in effects(others)],
    }


def _with_own(heldout: pd.DataFrame, prompts: Sequence[str], category: str) -> pd.DataFrame:
    """Put anyone's prompts before those of the study."""
    import pandas as pd

    own = pd.DataFrame({"text": list(prompts), "category": category, "refused": False})
    return pd.concat([own, heldout[["text", "category", "refused"]]]) if len(own) else heldout


def show(found: Mapping[str, Any]) -> None:
    """Print what was found."""
    done = "removed from" if found["action"] == "remove" else "switched on in"
    n_nodes, factor = len(found["nodes"]), "" if found["factor"] == 1 else f", factor {found['factor']:g}"
    console = page()
    print(plain(f"the circuit of {found['category']} ({n_nodes} nodes{factor}) {done} {found['model']}\n"))
    rows = [
        [one["prompt"], *(text for side in ("before", "after") for text in _answer(one[side]))]
        for one in found["prompts"]
    ]
    print_table(console, ["prompt", "score", "response", "after", "response after"], rows, words=(0, 2, 4))
    if not rows:
        console.print(plain(f"no held-out prompt of {found['category']} was {_did(found['action'] == 'add')}"), "")
    headers = ["category", "prompts", "score", "after", "refused", "after"]
    print_table(console, headers, [_effect(one) for one in found["effects"]], words=(0,))


def _did(add: bool) -> str:
    return "complied with" if add else "refused"


def _answer(answer: Mapping[str, Any]) -> list[str]:
    return [f"{answer['score']:+.1f}", answer["response"]]


def _effect(effect: Mapping[str, Any]) -> list[str]:
    scores, rates = ([f"{x:+.1f}" for x in effect["score"]], [f"{x:.0%}" for x in effect["refusal_rate"]])
    return [effect["category"], str(effect["n_prompts"]), *scores, *rates]


def read_prompts(path: Path) -> list[str]:
    """Read one prompt a line; empty lines count for nothing.

    Raises:
        InputError: The file cannot be read, or has none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} (one prompt a line, UTF-8): {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"there is no prompt in {path}: write one a line")
    return found


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.circuits.steer", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("study", type=Path, metavar="STUDY", help="a model's folder, such as outputs/planted")
    parser.add_argument("--category", required=True, help="whose circuit")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", dest="add", action="store_false", help="take the circuit out (unless told to add it)")
    what.add_argument("--add", dest="add", action="store_true", help="switch it on")
    parser.set_defaults(add=False)
    parser.add_argument("--factor", type=float, default=1.0, help="how far: 0.5 half of the way, 2 twice (1)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="your own prompts, one a line")
    parser.add_argument("--n", type=int, default=8, help="held-out prompts of each category (8)")
    parser.add_argument("--tokens", type=int, default=32, help="greatest length of a response (32)")
    parser.add_argument("--json", action="store_true", help="print it all as JSON")
    options = parser.parse_args(arguments)
    if options.n < 1 or options.tokens < 1 or not math.isfinite(options.factor):
        parser.error("--n and --tokens must be at least 1, and --factor a finite number")
    found = steer_study(
        options.study,
        options.category,
        add=options.add,
        factor=options.factor,
        prompts=read_prompts(options.prompts) if options.prompts else (),
        n=options.n,
        n_tokens=options.tokens,
    )
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
