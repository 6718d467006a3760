"""A study as a page: the same sections through two templates, HTML (one file, no request to anywhere) and Markdown.

Everything printed is escaped by the environment, for names and texts come from outside. Plotly and the scripts in
``static`` are within the page; its policy names their hashes, so that nothing else is ever run, whatever a text says.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refusal.report.blocks import Section, interval, number, share
from refusal.report.study import Study
from refusal.report.words import doubts, sentence
from refusal.style import UNDEFINED, colour_of

STATIC = ("page", "heatmap", "chart", "graph", "features")
UNSAFE = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&"})  # could end a script, or be markup


def render(study: Study, sections: Sequence[Section]) -> dict[str, str]:
    """Return the pages by file name: ``report.html`` and ``report.md``."""
    verdict = study.verdict
    context: dict[str, Any] = {
        "model": verdict["model"],
        "data": verdict["data"],
        "verdict": verdict["verdict"],
        "sentence": sentence(verdict),
        "reason": verdict.get("reason") or "",
        "doubts": doubts(study),
        "gauge": gauge(verdict),
        "tiles": tiles(study),
        "sections": sections,
    }
    pages = {"report.html": html_environment(), "report.md": markdown_environment()}
    return {name: environment.get_template(name).render(context) for name, environment in pages.items()}


def html_environment() -> Environment:
    """Return the environment of the HTML page: autoescape on."""
    environment = _environment(autoescape=True)
    environment.filters["ours"] = Markup  # only for what this package wrote: its drawings and scripts
    environment.filters.update(json=data_json, hash_of=hash_of)
    steps = [colour_of(step / 10) for step in range(11)]
    environment.globals.update(colours=steps, undefined_colour=UNDEFINED, scripts=scripts)
    return environment


def scripts() -> list[str]:
    """Return the page's scripts: Plotly's, then ours."""
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    static = files("refusal.report") / "static"
    ours = "\n".join((static / f"{name}.js").read_text(encoding="utf-8") for name in STATIC)
    return [script.replace("\r\n", "\n").replace("</script", "<\\/script") for script in (plotly, ours)]


def hash_of(script: str) -> str:
    """Return a script's name in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def data_json(data: object) -> Markup:
    """Return JSON that can stand within a page: ASCII, and without any letter that means something to HTML."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).translate(UNSAFE))


def markdown_environment() -> Environment:
    """Return the environment of the Markdown page: everything printed goes through ``markdown``."""
    environment = _environment(autoescape=False, finalize=markdown)
    environment.filters["code"] = lambda text: Markup(text.replace("`", "'"))  # no text can close its own fence
    environment.filters["drawn"] = Markup  # only for what a macro of the template has written
    return environment


def _environment(**options: Any) -> Environment:
    loader = PackageLoader("refusal.report", "templates")
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


def markdown(value: object) -> object:
    """Escape plain text for Markdown: it holds no tag, link, code, emphasis, table border or new line."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    line = " ".join(html.escape(value, quote=False).split())
    return re.sub(r"([\\`*\[\]|~])|(?<!\w)(_)|(_)(?!\w)", r"\\\1\2\3", line)


def gauge(verdict: Mapping[str, Any]) -> dict[str, float] | None:
    """Return where the index and its interval lie on the scale, in percent of its width; None without an index."""
    values = {"index": verdict.get("index"), "low": verdict.get("ci_low"), "high": verdict.get("ci_high")}
    if values["index"] is None:
        return None
    return {key: round(100 * min(max(values["index"] if v is None else v, 0.0), 1.0), 2) for key, v in values.items()}


def tiles(study: Study) -> list[tuple[str, str, str]]:
    """Return the key figures: (name, value, what it means)."""
    verdict = study.verdict
    rates, controls = verdict.get("refusal_rate") or {}, verdict.get("controls") or {}
    explained = (
        f"of refusal by the knock-out; random directions {share(controls.get('random_share'))}, "
        f"change to complied prompts {number(controls.get('kl_complied'))} nats (KL)"
    )
    found = [
        ("Index", number(verdict.get("index")), _meaning_of_index(verdict)),
        ("Explained share", share(verdict.get("explained_share")), explained),
        ("Effective circuits", number(verdict.get("effective_circuits"), 1), _meaning_of_circuits(verdict)),
    ]
    if verdict.get("late_share") is not None:
        found.append(("Late share", share(verdict["late_share"]), "of the effect passes through layers without a vote"))
    others = f"hard {share(rates.get('hard'))}, safe {share(rates.get('safe'))}"
    found.append(("Toxic refused", share(rates.get("toxic")), others))
    found.append(("Score AUC", number(verdict.get("score_auc")), "the score tells refused from complied; 1: always"))
    return found


def _meaning_of_circuits(verdict: Mapping[str, Any]) -> str:
    """In how many categories, and which part of the effect all of them or only one of them uses."""
    votes = f"in {len(verdict['votes'])} categories with a vote"
    if verdict.get("core") is None or verdict.get("tail") is None:
        return votes
    return f"{votes}; {share(verdict['core'])} common to all, {share(verdict['tail'])} of one alone"


def _meaning_of_index(verdict: Mapping[str, Any]) -> str:
    """The interval, and what the two ends of the scale are."""
    bounds = interval(verdict.get("ci_low"), verdict.get("ci_high"))
    return "not measured" if verdict.get("index") is None else f"{bounds}; 0: nothing shared, 1: one mechanism"
