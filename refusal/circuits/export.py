"""Write a study's circuits for other programs: ``python -m refusal.circuits.export STUDY --to graphml``.

GraphML is read by networkx, Gephi, Cytoscape and yEd; JSON is the study's own format (docs/circuits.md). One category
is written into a file, all of them into a folder, a file each. A STUDY is a model's folder, one of report/studies in
it, or one of circuits.

Examples:
    python -m refusal.circuits.export outputs/planted --to graphml
    python -m refusal.circuits.export outputs/planted --to graphml --category hate --out hate.graphml
    python -m refusal.circuits.export outputs/planted --to json --out circuits
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.artifacts import write_atomic
from refusal.circuits.circuit import ERROR, SCHEMA_VERSION, Circuit, circuit_filename
from refusal.circuits.finished import circuits_of_study, finished
from refusal.config.suggest import did_you_mean
from refusal.models.sites import parse_site
from refusal.terminal import plain

NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
TYPES = {bool: "boolean", int: "long", float: "double", str: "string"}


def graphml(circuit: Circuit) -> str:
    """Return a circuit as a directed graph.

    The graph has the circuit's facts as data; nodes have ``site``, ``kind``, ``layer``, ``feature``, ``is_error``,
    ``importance`` and ``scaled``, edges ``weight`` and ``scaled``. The ids of nodes are ``<site>/<feature>``.
    """
    root = ElementTree.Element("graphml", xmlns=NAMESPACE)
    graph = ElementTree.Element("graph", id="circuit", edgedefault="directed")
    keys: dict[tuple[str, str], str] = {}

    def add_data(element: ElementTree.Element, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            key = keys.get((element.tag, name))
            if key is None:
                key = keys[element.tag, name] = f"d{len(keys)}"
                about = {"id": key, "for": element.tag, "attr.name": name, "attr.type": TYPES[type(value)]}
                ElementTree.SubElement(root, "key", about)
            ElementTree.SubElement(element, "data", key=key).text = _text(value)

    add_data(graph, _facts(circuit))
    for node in circuit.nodes:
        site = parse_site(node.site)
        place = {"site": node.site, "kind": site.kind, "layer": site.layer}
        what = {"feature": node.feature, "is_error": node.feature == ERROR}
        size = {"importance": float(node.importance), "scaled": float(node.scaled)}
        add_data(ElementTree.SubElement(graph, "node", id=node.id), {**place, **what, **size})
    for edge in circuit.edges:
        element = ElementTree.SubElement(graph, "edge", source=edge.up, target=edge.down)
        add_data(element, {"weight": float(edge.weight), "scaled": float(edge.scaled)})
    root.append(graph)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_json(circuit: Circuit) -> str:
    """Return the content of the circuit's own file."""
    return json.dumps(circuit.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Circuit], str]] = {"graphml": graphml, "json": as_json}


def export(study: Path, to: str, *, category: str | None = None, out: Path | None = None) -> list[Path]:
    """Write circuits; return the files.

    Args:
        study: The study's folder.
        to: One of ``FORMATS``.
        category: Only this one's; None: all that have a circuit.
        out: The file of one category, or the folder of all; None: named as circuits are, in this folder.

    Raises:
        InputError: The format or the category is unknown, or the disk refuses to write.
    """
    if to not in FORMATS:
        raise InputError(f"there is no format '{to}': {did_you_mean(to, FORMATS)}")
    paths = []
    for circuit in circuits_of_study(finished(study), category):
        if circuit.has_circuit or category:
            name = Path(circuit_filename(circuit.model, circuit.category)).with_suffix(f".{to}")
            path = name if out is None else out if category else out / name
            write_atomic(path, FORMATS[to](circuit))
            paths.append(path)
    return paths


def _facts(circuit: Circuit) -> dict[str, Any]:
    names = ("model", "category", "side", "method", "n_prompts", "has_circuit", "effect", "fingerprint")
    return {"schema_version": SCHEMA_VERSION, **{name: getattr(circuit, name) for name in names}}


def _text(value: Any) -> str:
    """A value as XML holds it: a category's name may have characters that XML has not."""
    return str(value).lower() if isinstance(value, bool) else plain(str(value)).replace("\n", " ")


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.circuits.export", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("study", type=Path, metavar="STUDY", help="a model's folder, such as outputs/planted")
    parser.add_argument("--to", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--category", help="only this one's circuit")
    parser.add_argument("--out", type=Path, help="the file of one category, or the folder of all (this folder)")
    for path in export(**vars(parser.parse_args(arguments))):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
