"""Charts that can be read off on the page: the index by starting layer, and faithfulness over the circuit's size.

Each is a specification for Plotly (``static/chart.js``); a colour is the name of one of the page's theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refusal.comparison.verdict import MODULAR_BELOW, MONOLITHIC_ABOVE
from refusal.report.blocks import View, number
from refusal.report.index_by_layer import HIGHEST, LOWEST, works
from refusal.report.matrices import short
from refusal.report.study import Study

LINES = ("--blue", "--orange", "--green", "--purple", "--yellow")
DASHES = ("solid", "dash", "dot")
LINE = {"color": "--muted", "width": 1, "dash": "dash"}


def index_view(study: Study, png: str) -> View | None:
    """Return the index and the own-category fall by starting layer; None where transfer was not measured."""
    steps = study.direct.get("by_start") or []
    if not steps:
        return None
    start, last = study.direct.get("start"), study.comparison["last_voting_layer"]
    chosen = "none was chosen" if start is None else f"chosen: {start}"
    alt = f"Index by starting layer; {chosen}; layers 0 to {last} have a vote"
    limits = _limits(steps)
    layout = _index_layout(study, steps, limits)
    choices = {"": {"traces": [*_index(steps, start, limits), _own(steps)], "layout": layout}}
    columns = ("start", "index", "low", "high", "own_drop", "explained_share")
    rows = [list(columns), *([step.get(name) for name in columns] for step in steps)]
    return View("chart", {"title": "Index by starting layer", "choices": choices, "csv": {"": rows}}, alt, png)


def _limits(steps: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """What the axis of the index shows: all that means something, within reason."""
    ends = [step[end] for step in steps for end in ("low", "high") if works(step, steps) and _bounded(step)]
    return max(min([-0.12, *ends]), LOWEST), min(max([1.12, *ends]), HIGHEST)


def _index(steps: Sequence[Mapping[str, Any]], start: int | None, limits: tuple[float, float]) -> list[dict[str, Any]]:
    """The starts that keep half of the best own fall, joined by a line; the others hollow, the chosen one set off."""
    known = [step for step in steps if step["index"] is not None]
    chosen = [step for step in known if step["start"] == start]
    solid = [step for step in known if works(step, steps)]
    rest = [step for step in known if step not in solid and step not in chosen]
    above, below = ([step for step in rest if _place(step, limits) == end] for end in reversed(limits))
    rest = [step for step in rest if step not in above and step not in below]
    line = {"x": [step["start"] for step in solid], "y": [step["index"] for step in solid]}
    enough = [step for step in solid if step not in chosen]
    return [
        {"mode": "lines", **line, "line": {"color": "--blue", "width": 1}, "hoverinfo": "skip", "showlegend": False},
        _points("keeps half of the best fall", enough, "--blue", "circle", 8, limits),
        _points("own fall too small to divide by", rest, "--muted", "circle-open", 7, limits),
        _points("the same, above", above, "--muted", "triangle-up-open", 8, limits),
        _points("the same, below", below, "--muted", "triangle-down-open", 8, limits),
        _points("chosen", chosen, "--orange", "circle", 13, limits),
    ]


def _points(
    name: str, steps: Sequence[Mapping[str, Any]], colour: str, symbol: str, size: int, limits: tuple[float, float]
) -> dict[str, Any]:
    """Dots with their intervals; what lies beyond the axis stands at its edge, and its box says where it is."""
    places = [_place(step, limits) for step in steps]
    reach = [_reach(step, y, limits) for step, y in zip(steps, places, strict=True)]
    ups, downs = ([ends[side] for ends in reach] for side in (0, 1))
    error = {"type": "data", "symmetric": False, "array": ups, "arrayminus": downs, "color": colour, "width": 0}
    return {
        "name": name,
        "mode": "markers",
        "x": [step["start"] for step in steps],
        "y": places,
        "error_y": {**error, "thickness": 2 if size > 7 else 1},
        "marker": {"color": colour, "symbol": symbol, "size": size},
        "text": [_said(step) for step in steps],
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": bool(steps),
    }


def _place(step: Mapping[str, Any], limits: tuple[float, float]) -> float:
    return min(max(step["index"], limits[0]), limits[1])


def _reach(step: Mapping[str, Any], y: float, limits: tuple[float, float]) -> tuple[float, float]:
    """How far the interval reaches up and down from the dot, within the axis."""
    if not _bounded(step) or y in limits:
        return 0.0, 0.0
    return max(0.0, min(step["high"], limits[1]) - y), max(0.0, y - max(step["low"], limits[0]))


def _said(step: Mapping[str, Any]) -> str:
    bounds = f" ({number(step['low'])} to {number(step['high'])})" if _bounded(step) else ""
    index = f"index {number(step['index'])}{bounds}"
    return f"from layer {step['start']} on<br>{index}<br>own fall {number(step['own_drop'])} nats"


def _own(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": "own fall",
        "mode": "lines+markers",
        "x": [step["start"] for step in steps],
        "y": [step["own_drop"] for step in steps],
        "yaxis": "y2",
        "line": {"color": "--ink", "width": 1},
        "marker": {"size": 5},
        "hovertemplate": "from layer %{x} on<br>own fall %{y:.2f} nats<extra></extra>",
        "showlegend": False,
    }


def _index_layout(study: Study, steps: Sequence[Mapping[str, Any]], limits: tuple[float, float]) -> dict[str, Any]:
    start, last = study.direct.get("start"), study.comparison["last_voting_layer"]
    best = max((step["own_drop"] for step in steps if step["own_drop"] is not None), default=0.0)
    first = steps[0]["start"] - 0.5
    right = max(steps[-1]["start"], study.comparison["n_layers"] - 1) + 0.5
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": first, "x1": last + 0.5}
    shapes: list[dict[str, Any]] = [{**band, "fillcolor": "--zone", "line": {"width": 0}, "layer": "below"}]
    levels = [("y", MODULAR_BELOW), ("y", MONOLITHIC_ABOVE), *([("y2", best / 2)] if best > 0 else [])]
    shapes += [_level(axis, y, first, right) for axis, y in levels]
    if start is not None:
        chosen = {"color": "--orange", "width": 1, "dash": "dot"}
        shapes.append({"type": "line", "x0": start, "x1": start, "yref": "paper", "y0": 0, "y1": 1, "line": chosen})
    words = [("modular", 0.15, "y"), ("mixed", 0.5, "y"), ("monolithic", 0.85, "y")]
    words += [("half of best", best / 2, "y2")] if best > 0 else []
    common = {
        "xref": "paper",
        "x": 1.005,
        "xanchor": "left",
        "showarrow": False,
        "font": {"color": "--muted", "size": 11},
    }
    axis = {"zeroline": False, "gridcolor": "--line", "fixedrange": True}
    return {
        "height": 460,
        "margin": {"l": 58, "r": 84, "t": 8, "b": 74},
        "xaxis": {
            **axis,
            "title": {"text": "first layer knocked out, N"},
            "range": [first, right],
            "showgrid": False,
            "anchor": "y2",
            "tickformat": "d",
            "dtick": 1 if right < 14 else None,
        },
        "yaxis": {
            **axis,
            "title": {"text": "index"},
            "domain": [0.38, 1],
            "range": list(limits),
            "tickvals": [0, 0.3, 0.7, 1],
        },
        "yaxis2": {**axis, "title": {"text": "own fall (nats)"}, "domain": [0, 0.3], "rangemode": "tozero"},
        "shapes": shapes,
        "annotations": [{**common, "text": word, "y": y, "yref": axis_name} for word, y, axis_name in words],
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "font": {"size": 11}},
    }


def _level(axis: str, y: float, left: float, right: float) -> dict[str, Any]:
    return {"type": "line", "x0": left, "x1": right, "yref": axis, "y0": y, "y1": y, "line": LINE}


def faithfulness_view(study: Study) -> View | None:
    """Return faithfulness and completeness over the size of the circuit; None where no curve is defined."""
    rows = [row for row in study.comparison.get("evaluation") or [] if row.get("curve")]
    if not rows:
        return None
    choices = {
        title: _curves(rows, key) for key, title in (("faithfulness", "Faithfulness"), ("completeness", "Completeness"))
    }
    head = ["category", "n_nodes", "faithfulness", "completeness"]
    points = [[row["category"], *(point[name] for name in head[1:])] for row in rows for point in row["curve"]]
    data = {"title": "Faithfulness by size", "choices": choices, "csv": {title: [head, *points] for title in choices}}
    return View("chart", data, "Faithfulness and completeness over the number of nodes, by category")


def _curves(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """One line a category, told apart by colour and dashes."""
    title = {
        "faithfulness": "share of the score that is kept",
        "completeness": "share of the score that is left without it",
    }[key]
    traces = [
        {
            "name": _safe(row["category"]),
            "mode": "lines+markers",
            "x": [point["n_nodes"] for point in row["curve"]],
            "y": [min(max(point[key], LOWEST), HIGHEST) for point in row["curve"]],
            "text": [number(point[key]) for point in row["curve"]],
            "line": {"color": LINES[i % len(LINES)], "dash": DASHES[i // len(LINES) % len(DASHES)], "width": 1.6},
            "marker": {"size": 5},
            "hovertemplate": f"{_safe(row['category'])}<br>%{{x}} nodes: %{{text}}<extra></extra>",
        }
        for i, row in enumerate(rows)
    ]
    axis = {"zeroline": False, "gridcolor": "--line", "fixedrange": True}
    layout = {
        "height": 380,
        "margin": {"l": 58, "r": 10, "t": 8, "b": 50},
        "xaxis": {
            **axis,
            "type": "log",
            "title": {"text": "strongest nodes (log scale)"},
            "showgrid": False,
            "dtick": 1,
        },
        "yaxis": {**axis, "title": {"text": title}, "tickvals": [0, 0.5, 1]},
        "legend": {"font": {"size": 11}},
    }
    return {"traces": traces, "layout": layout}


def _safe(name: str) -> str:
    """A category's name for Plotly, which reads some markup in texts, and fields in templates."""
    line = short(name, 24)
    for mark, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "% {")):
        line = line.replace(mark, instead)
    return line


def _bounded(step: Mapping[str, Any]) -> bool:
    return step.get("low") is not None and step.get("high") is not None
