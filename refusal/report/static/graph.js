// The circuit of a category as a graph: a column a site, layers from left to right, a link a node.
//
// data: circuits: [{category, effect, n_nodes, n_edges, nodes: [[site, feature, importance]], edges: [[up, down,
// weight]]}], the strongest of them, edges by the places of their nodes; sites: {name: [layer, kind]} in the order of
// computation; described: ids of the nodes that have a page. A node's link leads to its page, "#feature/SITE/NUMBER".
"use strict";

views.graph = (element, data) => {
  const ERROR = -1, GAP = 27, COLUMN = 78, HEAD = 46;
  let circuit = data.circuits[0], least = 0, least_edge = 0;
  const columns = Object.keys(data.sites);
  const described = new Set(data.described);
  const drawing = draw("svg", { class: "graph", role: "group" });
  const frame = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Graph of the circuit" }, drawing);
  const controls = make("div", { class: "controls" });
  const said = make("p", { class: "caption", role: "status" });
  const id = ([site, feature]) => `${site}/${feature}`;
  const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);

  /** The share of the largest at which at most so many values are left, as a slider has it: steps of a log scale. */
  function level(values, most) {
    const sizes = values.map(Math.abs).sort((a, b) => b - a);
    if (sizes.length <= most) return 0;
    const step = Math.ceil(100 * (1 + Math.log10(sizes[most] / sizes[0]) / 3) + 1e-6) / 100;
    return step > 0 ? Math.min(1, 10 ** (3 * (step - 1))) : 0;
  }

  function choose(number) {
    circuit = data.circuits[number];
    const top = largest(circuit.nodes.map((node) => node[2]));
    least = level(circuit.nodes.map((node) => node[2]), 45);
    const strong = circuit.nodes.map((node) => Math.abs(node[2]) >= least * top);
    least_edge = level(circuit.edges.filter(([up, down]) => strong[up] && strong[down]).map((edge) => edge[2]), 90);
    const names = data.circuits.map((one) => short(one.category, 40));
    controls.replaceChildren(
      chooser("Category", names, number, (at) => { choose(at); controls.querySelector("select").focus(); }),
      slider("Nodes over", least, (value) => { least = value; show(); }),
      slider("Edges over", least_edge, (value) => { least_edge = value; show(); }),
    );
    show();
  }

  function show() {
    const top = largest(circuit.nodes.map((node) => node[2])), top_edge = largest(circuit.edges.map((edge) => edge[2]));
    const shown = circuit.nodes.map((node) => Math.abs(node[2]) >= least * top);
    const edges = circuit.edges.filter(([up, down, weight]) => shown[up] && shown[down] && Math.abs(weight) >= least_edge * top_edge);
    const place = positions(shown, edges, top);
    const there = place.filter(Boolean);
    const used = columns.filter((site) => there.some((at) => at.site === site));
    const step = Math.max(COLUMN, Math.min(170, frame.clientWidth / Math.max(1, used.length)));
    there.forEach((at) => { at.column = used.indexOf(at.site); at.x = step * (at.column + 0.5); });
    const room = Math.max(0, ...edges.map(([up, down]) => lift(place[up], place[down]))) * 0.75; // of the highest bow
    there.forEach((at) => { at.y += room; });
    const width = step * used.length, height = Math.max(0, ...there.map((at) => at.y)) + GAP;
    drawing.replaceChildren(
      ...used.map((site, i) => heading(site, step * (i + 0.5))),
      ...edges.map(([up, down, weight]) => join(place[up], place[down], weight / top_edge, up, down)),
      ...circuit.nodes.flatMap((node, i) => (shown[i] ? [dot(node, place[i], i)] : [])),
    );
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) drawing.setAttribute(name, value);
    drawing.setAttribute("aria-label", `Circuit of ${circuit.category}`);
    const n = shown.filter(Boolean).length;
    said.textContent = `${n} of ${circuit.n_nodes} nodes and ${edges.length} of ${circuit.n_edges} edges; shares are of the strongest, ${number(top)} and ${number(top_edge)} nats.`;
  }

  /** Where each shown node stands: in its site's column, near what it is joined to on its left. */
  function positions(shown, edges, top) {
    const place = circuit.nodes.map((node, i) => (shown[i] ? { site: node[0], size: 4 + 6 * Math.sqrt(Math.abs(node[2]) / top), y: 0 } : null));
    const tallest = Math.max(...columns.map((site) => place.filter((at) => at?.site === site).length));
    for (const site of columns) {
      const here = place.flatMap((at, i) => (at?.site === site ? [i] : []));
      const pull = new Map(here.map((i) => {
        const before = edges.filter((edge) => edge[1] === i);
        const weight = before.reduce((sum, edge) => sum + Math.abs(edge[2]), 0);
        return [i, weight ? before.reduce((sum, edge) => sum + Math.abs(edge[2]) * place[edge[0]].y, 0) / weight : null];
      }));
      const middle = HEAD + (GAP * tallest) / 2;
      here.sort((a, b) => (pull.get(a) ?? middle) - (pull.get(b) ?? middle));
      here.forEach((i, row) => { place[i].y = middle + GAP * (row - (here.length - 1) / 2) + 8; });
    }
    return place;
  }

  function heading(site, x) {
    const [layer, kind] = data.sites[site];
    return draw("text", { x, y: 14, class: "heading" }, draw("tspan", { x }, `layer ${layer}`), draw("tspan", { x, dy: 15 }, kind));
  }

  /** How far an edge bows upwards, so that it does not run through the nodes between its ends. */
  const lift = (from, to) => Math.min(70, 14 * (Math.abs(to.column - from.column) - 1));

  function join(from, to, weight, up, down) {
    const bend = (to.x - from.x) / 2, bow = lift(from, to);
    return draw("path", {
      d: `M${from.x} ${from.y} C${from.x + bend} ${from.y - bow} ${to.x - bend} ${to.y - bow} ${to.x} ${to.y}`,
      class: weight < 0 ? "edge down" : "edge up", "stroke-width": 0.6 + 3.4 * Math.abs(weight), "data-ends": ` ${up} ${down} `,
    });
  }

  function dot(node, at, i) {
    const [site, feature, importance] = node;
    const sign = importance < 0 ? "down" : "up", r = at.size;
    const shape = feature === ERROR
      ? draw("rect", { x: at.x - r, y: at.y - r, width: 2 * r, height: 2 * r, class: sign })
      : draw("circle", { cx: at.x, cy: at.y, r, class: sign });
    const what = feature === ERROR ? `${site}: what the SAE leaves out` : id(node);
    const title = draw("title", {}, `${what}: ${number(importance, 3)} nats`);
    const label = draw("text", { x: at.x + r + 3, y: at.y + 3.5 }, feature === ERROR ? "error" : String(feature));
    const group = described.has(id(node)) ? draw("a", { href: `#feature/${id(node)}`, class: "node" }) : draw("g", { class: "node" });
    group.append(title, shape, label);
    group.setAttribute("aria-label", title.textContent);
    const mark = (on) => drawing.querySelectorAll(`[data-ends*=" ${i} "]`).forEach((edge) => edge.classList.toggle("marked", on));
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]]) group.addEventListener(event, () => mark(on));
    return group;
  }

  const key = make("p", { class: "caption" }, "Filled blue: promotes refusal; hollow orange: prevents it; square: what an SAE leaves out. Edges: solid blue adds to the next, dashed orange takes away; the wider, the more. A node leads to its page below.");
  element.append(make("div", { class: "figcaption" }, make("b", {}, "The circuit as a graph")), controls, frame, said, key);
  choose(0);
  return show;
};
