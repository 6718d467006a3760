// A matrix over categories, one of several that are chosen by their keys (measure, site, ...).
//
// data: title, across, down, keys (names of the choices), orders ({name: order of the categories}), categories, marks
// (names with a mark), frame (whether the diagonal is framed), notes: [{name, values}] (p of each pair), pages: [{keys,
// caption, unit, values, ceiling, order, top, digits}]; matrices in the order of data.categories, null where undefined;
// scale ([place, colour] of 0 to 1), dark (the share of the scale over which white ink is better), undefined (a colour).
"use strict";

views.heatmap = (element, data) => {
  const defined = (one) => one.values.some((row) => row.some((value) => value !== null));
  const chosen = [...(data.pages.find(defined) ?? data.pages[0]).keys];
  let order = 0;
  const orders = Object.keys(data.orders);
  const controls = make("div", { class: "controls" });
  const caption = make("span", {});
  const plot = make("div", { class: "plot", role: "img", "aria-label": data.title });
  const table = make("div", { class: "scroll" });
  const page = () => data.pages.find((one) => one.keys.every((value, i) => value === chosen[i]));

  // A choice offers what there is beside the choices before it, so that every combination on show exists.
  function offer() {
    controls.replaceChildren();
    let left = data.pages;
    data.keys.forEach((key, i) => {
      const names = [...new Set(left.map((one) => one.keys[i]))];
      if (!names.includes(chosen[i])) chosen[i] = names[0];
      left = left.filter((one) => one.keys[i] === chosen[i]);
      const all = new Set(data.pages.map((one) => one.keys[i]));
      if (all.size > 1) controls.append(chooser(key, names, names.indexOf(chosen[i]), (at) => choose(i, names[at], key)));
    });
    controls.append(chooser("Order", orders, order, (at) => { order = at; show(); }));
  }

  function choose(key, value, label) {
    chosen[key] = value;
    offer();
    show();
    [...controls.children].find((control) => control.firstChild.data === label).querySelector("select").focus();
  }

  const sequence = () => data.orders[orders[order]] ?? page().order;

  function show() {
    const one = page();
    plot.hidden = files.hidden = details.hidden = !defined(one);
    caption.textContent = plot.hidden ? one.caption : [one.caption, data.across && `row: ${data.down}, column: ${data.across}`].filter(Boolean).join("; ");
    if (plot.hidden) return;
    const rows = sequence();
    const names = rows.map((c) => short(data.categories[c], innerWidth < 500 ? 12 : 18) + (data.marks.includes(data.categories[c]) ? " *" : ""));
    const width = plot.clientWidth;
    const letters = Math.max(7, ...names.map((name) => name.length));
    const left = Math.min(12 + (width < 420 ? 5.8 : 6.9) * letters, width * 0.38), bottom = 20 + 5.2 * letters;
    const columns = rows.length + (one.ceiling ? 1.35 : 0);
    const cell = Math.max(14, Math.min((width - left - 6) / columns, rows.length > 5 ? 38 : 62));
    const size = cell < 22 ? 7.5 : cell < 30 ? 9 : 11;
    const common = {
      type: "heatmap", zmin: 0, zmax: one.top, colorscale: data.scale, showscale: false, hoverongaps: false, xgap: 1, ygap: 1,
      texttemplate: "%{text}", hovertemplate: "%{customdata}<extra></extra>",
    };
    // Black ink on pale cells, white on dark ones: a layer each.
    const cells = (values, digits, said, more) => ["#000", "#fff"].map((ink) => {
      const mine = values.map((row) => row.map((value) => (value !== null && value > data.dark * one.top) === (ink === "#fff")));
      const keep = (make_of, other) => values.map((row, i) => row.map((value, j) => (mine[i][j] ? make_of(value) : other)));
      return { ...common, ...more, z: keep((value) => value, null), text: keep((value) => number(value, digits), ""), customdata: said, textfont: { size, color: ink } };
    });
    const hover = rows.map((i) => rows.map((j) => literal(tell(one, i, j)).replaceAll("\n", "<br>")));
    const traces = cells(rows.map((i) => rows.map((j) => one.values[i][j])), one.digits, hover, {});
    if (one.ceiling) {
      const said = rows.map((i) => [literal(`${data.categories[i]} with itself, from two halves of its prompts: ${number(one.ceiling[i])}`)]);
      traces.push(...cells(rows.map((i) => [one.ceiling[i]]), 2, said, { xaxis: "x2" }));
    }
    const axis = { tickmode: "array", tickvals: rows.map((_, i) => i), ticktext: names.map(literal), ticks: "outside", ticklen: 4, tickcolor: "rgba(0,0,0,0)", showgrid: false, zeroline: false, tickfont: { size: width < 420 ? 10 : 12 }, fixedrange: true };
    const frames = data.frame ? rows.map((_, i) => ({ type: "rect", x0: i - 0.5, x1: i + 0.5, y0: i - 0.5, y1: i + 0.5, line: { color: "#000", width: 1.5 } })) : [];
    const grey = (one.ceiling ? ["x", "x2"] : ["x"]).map((axis) => ({ type: "rect", xref: `${axis} domain`, yref: "y domain", x0: 0, x1: 1, y0: 0, y1: 1, fillcolor: data.undefined, line: { width: 0 }, layer: "below" }));
    Plotly.react(plot, traces, themed({
      width: left + cell * columns + 6, height: cell * rows.length + bottom + 4, margin: { l: left, r: 6, t: 4, b: bottom },
      xaxis: { ...axis, tickangle: -45, domain: [0, rows.length / columns] },
      xaxis2: { ...axis, tickangle: -45, tickvals: [0], ticktext: ["ceiling"], domain: [(rows.length + 0.35) / columns, 1], visible: Boolean(one.ceiling) },
      yaxis: { ...axis, autorange: "reversed" },
      shapes: [...grey, ...frames],
    }), settings);
    plot.setAttribute("aria-label", `${data.title}: ${chosen.join(", ")}. The values stand in the table below.`);
    if (details.open) fill();
  }

  /** What stands in the box over a cell. */
  function tell(one, i, j) {
    const [row, column] = [data.categories[i], data.categories[j]];
    const lines = [data.across ? `${data.down}: ${row}\n${data.across}: ${column}` : `${row} and ${column}`];
    lines.push(`${one.unit}: ${number(one.values[i][j], 3)}`);
    if (one.ceiling) lines.push(`noise ceilings: ${number(one.ceiling[i])} and ${number(one.ceiling[j])}`);
    data.notes.forEach(({ name, values }) => lines.push(`${name}: ${p_value(values[i][j])}`));
    return lines.join("\n");
  }

  function rows_of() {
    const one = page(), shown = sequence();
    const head = ["", ...shown.map((c) => data.categories[c]), ...(one.ceiling ? ["noise ceiling"] : [])];
    return [head, ...shown.map((i) => [data.categories[i], ...shown.map((j) => one.values[i][j]), ...(one.ceiling ? [one.ceiling[i]] : [])])];
  }

  function fill() {
    const [head, ...rows] = rows_of();
    const cells = (row, tag) => row.map((value, i) => make(i ? tag : "th", { scope: i ? (tag === "th" ? "col" : null) : "row" }, typeof value === "string" ? short(value, 40) : number(value)));
    table.replaceChildren(make("table", { class: "rows" }, make("thead", {}, make("tr", {}, ...cells(head, "th"))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row, "td"))))));
  }

  const name = () => [data.title, ...chosen].join(" ").toLowerCase().replace(/[^a-z0-9]+/g, "_");
  const details = make("details", { ontoggle: () => { if (details.open) fill(); } }, make("summary", {}, "As a table"), table);
  const files = make("div", { class: "files" }, button("PNG", () => png(plot, name())), button("CSV", () => download(`${name()}.csv`, csv(rows_of()), "text/csv")));
  element.append(make("div", { class: "figcaption" }, make("b", {}, data.title), caption), controls, plot, files, details);
  offer();
  show();
  return show;
};
