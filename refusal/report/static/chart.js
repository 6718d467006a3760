// A chart that Python has specified for Plotly, one of several that are chosen by name.
//
// data: title, choices: {name: {traces, layout}}, csv: {name: rows}. A colour is the name of one of the theme ("--blue").
"use strict";

views.chart = (element, data) => {
  const names = Object.keys(data.choices);
  let chosen = 0;
  const plot = make("div", { class: "plot", role: "img", "aria-label": data.title });

  // Names of colours anywhere in a specification become the theme's.
  const resolve = (value) => {
    if (Array.isArray(value)) return value.map(resolve);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, resolve(one)]));
    return typeof value === "string" && /^--[a-z-]+$/.test(value) ? colour(value) : value;
  };

  function show() {
    const { traces, layout } = data.choices[names[chosen]];
    const width = Math.min(plot.clientWidth, 760);
    const fitted = resolve(layout);
    if (width < 480 && fitted.legend.orientation !== "h") {
      const lines = Math.ceil(traces.length / 2);
      fitted.legend = { ...fitted.legend, orientation: "h", x: 0, y: -0.28 };
      fitted.margin = { ...fitted.margin, b: 60 + 22 * lines };
      fitted.height += 22 * lines;
    }
    Plotly.react(plot, resolve(traces), themed({ ...fitted, width }), settings);
  }

  const name = () => [data.title, names.length > 1 ? names[chosen] : ""].join(" ").trim().toLowerCase().replace(/[^a-z0-9]+/g, "_");
  const controls = make("div", { class: "controls" });
  if (names.length > 1) controls.append(chooser("Show", names, chosen, (at) => { chosen = at; show(); }));
  const files = make("div", { class: "files" }, button("PNG", () => png(plot, name())), button("CSV", () => download(`${name()}.csv`, csv(data.csv[names[chosen]]), "text/csv")));
  element.append(make("div", { class: "figcaption" }, make("b", {}, data.title)), controls, plot, files);
  show();
  return show;
};
