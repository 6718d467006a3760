"""Health of the SAEs: what they leave out, what the model still does with them in place, what their features tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refusal.models.sites import parse_site
from refusal.prompts.prompt import SPLITS
from refusal.report.blocks import Block, Fold, Picture, Section, Table, Text, number, share
from refusal.report.recovered import recovered_figure
from refusal.report.sites import in_words
from refusal.report.study import Study
from refusal.style import inline_svg

RECOVERED_PNG = "recovered_refusal.png"
HIGH_FVU = 0.3  # of an SAE at the last token: what it leaves out may be what refuses
LOW_RECOVERED = 0.8  # of the refusal on toxic prompts
MANY_IDLE = 0.5
RUNS = ("clean", "spliced", "ablated")
HOW_TO_READ = (
    "Refusal recovered: each SAE is put in its site's place, at the tokens of the kinds it was trained on. 1 is the "
    "refusal score of the unchanged model, 0 that of the model in which the site says the same of every prompt (its "
    "mean over the prompts, by kind of token), and an SAE that does worse is under 0. A dash: that changes the score "
    "by next to nothing, so that there is nothing to recover."
)


def saes_section(study: Study) -> Section:
    """Return the section."""
    if not study.saes:
        return Section("Health of the SAEs", "saes", [Text("No SAE of this study was found.")])
    blocks = [*_trained_on(study), *_warnings(study), _reconstruction(study), *_in_place(study)]
    return Section("Health of the SAEs", "saes", blocks)


def _trained_on(study: Study) -> list[Block]:
    """Say whose SAEs the circuits are read with, where each side of the prompts has its own."""
    parts = {config.get("part", "all") for config, _ in study.saes.values()} - {"all"}
    return [Text(f"Circuits are read with SAEs that were trained on {part} prompts only.") for part in sorted(parts)]


def _warnings(study: Study) -> list[Block]:
    """What makes circuits at some sites less trustworthy, in words."""
    heldout = {site: found for site, (_, found) in study.saes.items()}
    poor = [site for site, found in heldout.items() if ((found.get("last") or {}).get("fvu") or 0) > HIGH_FVU]
    idle = [site for site, found in heldout.items() if ((found.get("all") or {}).get("dead_fraction") or 0) > MANY_IDLE]
    lossy = sorted({one["site"] for one in _measured(study).values() if _is_lossy(one)})
    blocks: list[Block] = []
    if poor:
        text = f"Poor reconstruction (FVU over {HIGH_FVU} at the last token) at {in_words(poor)}: "
        blocks.append(Text(f"{text}the circuits there deserve less trust.", warning=True))
    if lossy:
        text = f"With the SAE in place under {LOW_RECOVERED:.0%} of the refusal is left on toxic prompts".replace(
            "%", " %"
        )
        blocks.append(Text(f"{text} at {in_words(lossy)}: part of what refuses is in its error.", warning=True))
    if idle:
        text = f"Over half of the features are idle at {in_words(idle)}: fewer would do; what they compute is unharmed."
        blocks.append(Text(text))
    return blocks


def _reconstruction(study: Study) -> Table:
    rows = []
    for site, (config, heldout) in sorted(study.saes.items(), key=lambda item: parse_site(item[0])):
        everywhere, last = heldout.get("all") or {}, heldout.get("last") or {}
        figures = [number(everywhere.get("fvu"), 3), number(last.get("fvu"), 3), number(everywhere.get("l0"), 1)]
        shares = [share(everywhere.get(key)) for key in ("dead_fraction", "dense_fraction")]
        rows.append([site, str(config.get("d_sae", "–")), *figures, *shares])
    caption = (
        "On held-out prompts. FVU: fraction of variance unexplained (0 is perfect, 1 no better than the mean), at all "
        "tokens and at the prompt's last, where refusal is read. L0: features active on a token. Idle: features that "
        "no held-out token activates. Dense: features that over a tenth of them activate."
    )
    return Table(["Site", "Features", "FVU", "FVU, last token", "L0", "Idle", "Dense"], rows, caption)


def _in_place(study: Study) -> list[Block]:
    """What the model does with an SAE in place, and what can be read off its features; nothing if not measured."""
    saes = _measured(study)
    if not saes:
        return []
    blocks: list[Block] = [Text(HOW_TO_READ)]
    figure = recovered_figure(saes)
    if figure is not None:
        alt = "Refusal recovered with an SAE in its site's place, by layer, on safe, hard and toxic prompts"
        blocks.append(Picture(inline_svg(figure, alt), RECOVERED_PNG, alt))
    blocks += [
        _behaviour(saes),
        Fold("What is read off a few features", [_probing(saes)]),
        Fold("Reconstruction of each split", [_by_split(saes)]),
    ]
    return blocks


def _behaviour(saes: Mapping[str, Mapping[str, Any]]) -> Table:
    some = next(iter(saes.values()))["splice"]["all"]
    rows = []
    for name, one in saes.items():
        everywhere, splits = one["splice"]["all"], one["splice"]["splits"]
        recovered = [number((splits.get(split) or {}).get("recovered_refusal")) for split in SPLITS]
        rates = [share(((splits.get("toxic") or {}).get("refusal_rate") or {}).get(run)) for run in RUNS]
        rows.append(
            [name, number(everywhere["kl"]["spliced"], 3), number(everywhere["recovered_ce"]), *recovered, *rates]
        )
    headers = ["SAE in place", "KL", "CE recovered", *(f"Refusal, {split}" for split in SPLITS)]
    caption = (
        f"{some['n_prompts']} held-out prompts, categories and splits alike, {some['n_answered']} of them answered. KL "
        "(nats) of the next token's distribution, and cross-entropy of the clean model's own first token, at the "
        "prompt's end. Refusal, safe to toxic: score recovered. Toxic refused: greedy responses that refuse, by the "
        "unchanged model, with the SAE, and with the site's mean."
    )
    return Table([*headers, "Toxic refused", "with SAE", "with mean"], rows, caption)


def _probing(saes: Mapping[str, Mapping[str, Any]]) -> Table:
    targets = list(dict.fromkeys(target for one in saes.values() for target in one["probing"]))
    rows = [[name, *(_areas(one["probing"].get(target)) for target in targets)] for name, one in saes.items()]
    caption = (
        "Area under the ROC on held-out prompts, at the last token (0.5: chance), of a logistic regression on the 1 "
        "and 5 best features / on the 1 and 5 best raw dimensions / on all of these. If features stand for what is "
        "asked, few of them come near to all dimensions. Category: mean over categories, each against the others."
    )
    return Table(["SAE", *(target.capitalize() for target in targets)], rows, caption)


def _areas(probed: Mapping[str, Any] | None) -> str:
    if probed is None:
        return "–"
    few = [", ".join(number(probed[source][k]["auc"]) for k in ("1", "5")) for source in ("features", "dimensions")]
    return " / ".join([*few, number(probed["all_dimensions"]["auc"])])


def _by_split(saes: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, one in saes.items():
        splits = [(one["heldout"]["splits"].get(split) or {}).get("all") or {} for split in SPLITS]
        rows.append(
            [name, *(number(found.get("fvu"), 3) for found in splits), *(number(f.get("l0"), 1) for f in splits)]
        )
    headers = [f"{figure}, {split}" for figure in ("FVU", "L0") for split in SPLITS]
    return Table(["SAE", *headers], rows, "At all tokens of held-out prompts of the split.")


def _measured(study: Study) -> Mapping[str, Mapping[str, Any]]:
    """The SAEs of ``quality.json`` by name, in the order of computation."""
    saes = (study.quality or {}).get("saes") or {}
    return dict(sorted(saes.items(), key=lambda item: (parse_site(item[1]["site"]), item[0])))


def _is_lossy(sae: Mapping[str, Any]) -> bool:
    recovered = (sae["splice"]["splits"].get("toxic") or {}).get("recovered_refusal")
    return recovered is not None and recovered < LOW_RECOVERED
