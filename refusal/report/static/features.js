// Pages of features: one at a time, chosen from a list or by the address, "#feature/SITE/NUMBER".
//
// data: what features.json says (refusal/circuits/features.py), and nodes: {id: [[category, importance]]}, the circuits
// that a feature is a node of; first: the one that is shown first. Without tokens, prompts are named by their ids.
"use strict";

views.features = (element, data) => {
  const id = (feature) => `${feature.site}/${feature.feature}`;
  const known = new Map(data.features.map((feature) => [id(feature), feature]));
  const strength = (name) => Math.max(0, ...(data.nodes[name] ?? []).map((one) => Math.abs(one[1])));
  const names = [...known.keys()];
  const page = make("article", { class: "feature", tabindex: -1 });
  const select = make("select", { onchange: () => { location.hash = `feature/${select.value}`; } });
  for (const site of new Set(data.features.map((feature) => feature.site))) {
    const own = names.filter((name) => known.get(name).site === site).sort((a, b) => strength(b) - strength(a));
    select.append(make("optgroup", { label: site }, ...own.map((name) => make("option", { value: name }, name))));
  }

  function show(name) {
    const feature = known.get(name);
    select.value = name;
    const circuits = data.nodes[name] ?? [];
    page.replaceChildren(
      make("h3", {}, name),
      make("p", {}, circuits.length ? `In the circuits of ${circuits.map(([category]) => short(category, 40)).join(", ")}.` : "In no circuit on this page."),
      make("div", { class: "sides" },
        make("div", {}, make("h4", {}, "Makes likelier"), words(feature.raises)),
        make("div", {}, make("h4", {}, "Makes less likely"), words(feature.lowers)),
        make("div", {}, make("h4", {}, "Nearest in direction"), near(feature)),
      ),
      make("h4", {}, "By category, at the last token"),
      groups(feature, new Map(circuits)),
      make("h4", {}, "Where it is most active: the strongest prompts of different categories"),
      ...(feature.top.length ? feature.top.map((one) => prompt(one, feature)) : [make("p", {}, "On no prompt, at the last token.")]),
    );
  }

  const words = (tokens) => make("p", { class: "words" }, ...tokens.flatMap(([token, logit]) => [make("span", { title: number(logit) }, visible(token)), " "]));

  const near = (feature) => make("p", { class: "words" }, ...feature.neighbours.flatMap(([other, cosine]) => {
    const name = `${feature.site}/${other}`;
    const text = known.has(name) ? make("a", { href: `#feature/${name}` }, String(other)) : String(other);
    return [make("span", {}, text, ` ${number(cosine)}`), " "];
  }));

  /** Importance and activation, a line a category. */
  function groups(feature, importance) {
    const most = Math.max(1e-30, ...["refused", "complied"].flatMap((did) => feature.mean[did].map((value) => value ?? 0)));
    const top = Math.max(1e-30, ...[...importance.values()].map(Math.abs));
    const bar = (value, text, share) => make("td", { class: "bar" }, make("i", { style: `width:${(100 * Math.min(1, Math.abs(share))).toFixed(1)}%`, class: value < 0 ? "down" : "up" }), make("span", {}, text));
    const line = (category, c) => make("tr", {}, make("th", { scope: "row" }, short(category, 24)),
      importance.has(category) ? bar(importance.get(category), number(importance.get(category)), importance.get(category) / top) : make("td", {}, "–"),
      ...["refused", "complied"].map((did) => bar(0, number(feature.mean[did][c]), (feature.mean[did][c] ?? 0) / most)),
      ...["refused", "complied"].map((did) => make("td", {}, feature.share[did][c] === null ? "–" : percent(feature.share[did][c]))));
    const head = ["Category", "Importance (nats)", "Mean, refused", "Mean, complied", "Active, refused", "Active, complied"];
    return make("div", { class: "scroll" }, make("table", { class: "rows" }, make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...data.categories.map(line))));
  }

  /** One prompt, its tokens the darker the more active the feature is there. */
  function prompt({ prompt: number_of, activations }, feature) {
    const { id: name, category, split, refused, tokens, left_out } = data.prompts[number_of];
    const at = new Map(activations), most = Math.max(...at.values());
    const about = `${short(category, 40)}, ${split}, ${refused ? "refused" : "complied with"}; strongest ${number(most)}`;
    if (!tokens) return make("p", { class: "tokens" }, make("small", {}, `${about}; prompt ${name}`));
    const line = make("p", { class: "tokens" });
    tokens.forEach((token, i) => {
      if (left_out && i === data.head) line.append(make("small", {}, ` … ${left_out} tokens … `));
      const active = at.get(i) ?? 0;
      const share = Math.min(1, active / Math.max(feature.maximum, most));
      line.append(make("span", active ? { style: `--share:${share.toFixed(2)}`, title: number(active), class: "active" } : {}, visible(token)));
    });
    return make("div", {}, make("small", {}, about), line);
  }

  /** A token's text, with what cannot be seen made visible, and no longer than anyone reads. */
  function visible(token) {
    const text = token.replace(/\n/g, "↵").replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
    return text.length > 80 ? `${text.slice(0, 79)}…` : text;
  }

  function follow() {
    const name = decodeURIComponent(location.hash.slice(1)).replace(/^feature\//, "");
    if (!known.has(name)) return;
    show(name);
    element.scrollIntoView({ block: "start" });
    page.focus({ preventScroll: true });
  }

  element.append(make("div", { class: "controls" }, make("label", { class: "control" }, "Feature", select)), page);
  if (data.first) show(data.first);
  follow();
  addEventListener("hashchange", follow);
  return () => {};
};
