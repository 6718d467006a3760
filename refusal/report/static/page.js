// What the views of the page share: making elements, controls, colours of the theme, files to download.
//
// A view is <div class="view" data-view="NAME"> with its data as JSON inside; views[NAME](element, data) draws it, and
// returns the function that draws it again (after a change of the window or the theme). Texts of data are set as text,
// never as markup.
"use strict";

const views = {};

/** Make an element: attributes by name, listeners by "on" + event, children are elements or texts. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** The same for a drawing. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A labelled choice among names; `act` is called with the index of the chosen one. */
function chooser(label, names, chosen, act) {
  const select = make("select", { onchange: () => act(select.selectedIndex) });
  names.forEach((name, i) => select.append(make("option", { selected: i === chosen }, name)));
  return make("label", { class: "control" }, label, select);
}

/** A labelled slider over shares from 0.1 % to 100 % on a log scale, at its left end 0; `act` is called with the share. */
function slider(label, share, act) {
  const value = () => (Number(input.value) ? 10 ** (3 * (Number(input.value) - 1)) : 0);
  const said = make("output", {});
  const say = () => { said.textContent = `${Number((100 * value()).toPrecision(2))} %`; input.setAttribute("aria-valuetext", said.textContent); };
  const input = make("input", { type: "range", min: 0, max: 1, step: 0.01, oninput: () => { say(); act(value()); } });
  input.value = share ? 1 + Math.log10(share) / 3 : 0;
  say();
  return make("label", { class: "control" }, label, make("span", { class: "slider" }, input, said));
}

const percent = (value) => `${Math.round(100 * value)} %`;
const button = (text, act) => make("button", { type: "button", onclick: act }, text);

/** A colour of the theme: "--blue" is what the style sheet says now. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Plotly reads some markup in texts; what is not ours must not be read so. */
const literal = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** One line of at most so many letters; control and direction marks, which would reorder the line, left out. */
function short(text, length = 18) {
  const letters = [...text.replace(/[\s\p{Cc}]+/gu, " ").replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")];
  return letters.length <= length ? letters.join("") : letters.slice(0, length - 1).join("").trimEnd() + "…";
}

const number = (value, digits = 2) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace(/^-(0\.0*)$/, "$1");

const p_value = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(2))));

/** Hand a text over as a file. */
function download(name, text, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** One field of a CSV file; what a spreadsheet would take for a formula is made a text. */
function field(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csv = (rows) => rows.map((row) => row.map(field).join(",") + "\r\n").join("");

/** What every Plotly figure here has: the page's letters and colours, and no buttons of Plotly's own. */
const settings = { displayModeBar: false, responsive: false, showTips: false };
function themed(layout) {
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: colour("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--muted"), font: { family: "system-ui, sans-serif", color: colour("--ink"), size: 13 }, align: "left" },
    dragmode: false,
    ...layout,
  };
}

const png = (plot, name) => Plotly.downloadImage(plot, { format: "png", filename: name, scale: 2, width: plot.clientWidth, height: plot.clientHeight });

addEventListener("DOMContentLoaded", () => {
  const redraws = [...document.querySelectorAll(".view")].map((element) => {
    const data = element.querySelector("script");
    const content = JSON.parse(data.textContent);
    data.remove();
    return views[element.dataset.view](element, content);
  });
  const again = () => redraws.forEach((redraw) => redraw());
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; again(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  // On paper everything is open and dark on light, whatever the screen.
  const closed = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    document.querySelectorAll("details:not([open])").forEach((details) => { details.open = true; closed.push(details); });
    again();
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    closed.splice(0).forEach((details) => { details.open = false; });
    again();
  });
});
