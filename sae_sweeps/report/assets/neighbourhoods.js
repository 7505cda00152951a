"use strict";
// The graph around a meta-latent: the latents that use it, of each SAE, and their other meta-latents.

const SIZE_COLORS = ["lower", "raise", "third", "other", "lime", "cyan", "bad", "good", "accent"];
const EDGE_WIDTHS = [0.6, 1.4, 2.6, 4.2]; // for weights up to a quarter, a half, three quarters and all of the largest
const OUTER = 1.9; // radius of the other meta-latents; that of the latents is 1
const LISTED_PARTS = 8; // lines of a hover label

const sizeColor = (place) => SIZE_COLORS[place % SIZE_COLORS.length];
const onCircle = (angle, radius) => [radius * Math.cos(angle), radius * Math.sin(angle)];

// Where a label has room: on the outer side of its point.
function placeLabel(angle) {
  const x = Math.cos(angle);
  if (Math.abs(x) < 0.35) return Math.sin(angle) > 0 ? "top center" : "bottom center";
  return x > 0 ? "middle right" : "middle left";
}

// Even angles for `count` things from the top, clockwise.
const spread = (count) => Array.from({ length: count }, (_, at) => Math.PI / 2 - (2 * Math.PI * at) / count);

// The latents around a meta-latent, ordered by SAE, with their angles: { place, latent, weight, parts, angle }.
function placeLatents({ latents }, hidden) {
  const shown = latents
    .map(([place, latent, weight, parts]) => ({ place, latent, weight, parts }))
    .filter(({ place }) => !hidden(place))
    .sort((a, b) => a.place - b.place || b.weight - a.weight);
  const angles = spread(shown.length);
  return shown.map((one, at) => ({ ...one, angle: angles[at] }));
}

// The other meta-latents of these latents, evenly around them in the order of their users' mean angles:
// { number, users, angle }, with users as { place, latent, weight, angle }.
function placeOthers(latents, centre) {
  const users = new Map();
  for (const { parts, ...latent } of latents)
    for (const [number, weight] of parts)
      if (number !== centre) users.set(number, [...(users.get(number) ?? []), { ...latent, weight }]);
  const found = [...users].map(([number, of]) => {
    const [x, y] = [Math.cos, Math.sin].map((part) => of.reduce((sum, { angle }) => sum + part(angle), 0));
    return { number, users: of, mean: (Math.PI / 2 - Math.atan2(y, x) + 2 * Math.PI) % (2 * Math.PI) };
  });
  found.sort((a, b) => a.mean - b.mean || a.number - b.number);
  const even = spread(found.length);
  // turned together, so that they are near their users
  const [x, y] = [Math.cos, Math.sin].map((part) =>
    found.reduce((sum, { mean }, at) => sum + part(Math.PI / 2 - mean - even[at]), 0),
  );
  return found.map((one, at) => ({ ...one, angle: even[at] + Math.atan2(y, x) }));
}

// Lines of a few widths for edges, { from, to, weight } with two points.
function drawEdges(edges, colorName) {
  const largest = Math.max(...edges.map(({ weight }) => weight), 1e-9);
  const widthOf = ({ weight }) => Math.min(EDGE_WIDTHS.length - 1, Math.floor((EDGE_WIDTHS.length * weight) / largest));
  return EDGE_WIDTHS.map((width, number) => {
    const some = edges.filter((edge) => widthOf(edge) === number);
    return {
      type: "scatter",
      mode: "lines",
      x: some.flatMap(({ from, to }) => [from[0], to[0], null]),
      y: some.flatMap(({ from, to }) => [from[1], to[1], null]),
      line: { width, color: cssColor(colorName) },
      hoverinfo: "skip",
    };
  });
}

// Points with labels, hover texts and links. nodes: { position, label, labelled, at, hover, link }
function drawNodes(nodes, name, marker, more = {}) {
  return {
    type: "scatter",
    mode: "markers+text",
    name: escapePlotly(name),
    x: nodes.map(({ position }) => position[0]),
    y: nodes.map(({ position }) => position[1]),
    text: nodes.map(({ label }) => label),
    textposition: nodes.map(({ at }) => at),
    textfont: { size: 10, color: cssColor("text") },
    hovertext: nodes.map(({ hover }) => hover),
    hovertemplate: "%{hovertext}<extra></extra>",
    marker: { line: { width: 1, color: cssColor("back") }, ...marker },
    ...(nodes.length && nodes.every(({ link }) => link) ? { links: nodes.map(({ link }) => link) } : {}),
    ...more,
  };
}

const listLines = (lines) =>
  [...lines.slice(0, LISTED_PARTS), ...(lines.length > LISTED_PARTS ? ["…"] : [])]
    .map((line) => `<br>${line}`)
    .join("");

// What Plotly needs for the graph around one entry of `study.neighbourhoods`.
function buildNeighbourhood(study, entry, labels, hidden) {
  const isHidden = (place) => hidden.has(labels[place]);
  const latents = placeLatents(entry, isHidden);
  const others = placeOthers(latents, entry.meta_latent);
  const cards = study.points.map((folder) => findCards(study.sweep, folder));
  const metaCards = findCards(study.sweep, study.key);
  const linkMeta = (number) => (metaCards >= 0 ? linkTo(metaCards, number) : null);
  const inner = latents.map(({ angle, weight }) => ({ from: [0, 0], to: onCircle(angle, 1), weight }));
  const outer = others.flatMap(({ angle, users }) =>
    users.map((user) => ({ from: onCircle(user.angle, 1), to: onCircle(angle, OUTER), weight: user.weight })),
  );
  const latentNodes = latents.map(({ place, latent, weight, parts, angle }) => ({
    place,
    position: onCircle(angle, 1),
    label: String(latent),
    at: placeLabel(angle),
    link: cards[place] >= 0 ? linkTo(cards[place], latent) : null,
    hover:
      `<b>latent ${latent}</b> of ${escapePlotly(labels[place])}<br>weight of meta-latent ${entry.meta_latent}: ` +
      formatNumber(weight) +
      listLines(
        parts
          .filter(([number]) => number !== entry.meta_latent)
          .map(([number, one]) => `meta-latent ${number}: ${formatNumber(one)}`),
      ),
  }));
  const otherNodes = others.map(({ number, users, angle }) => ({
    position: onCircle(angle, OUTER),
    label: users.length > 1 ? String(number) : "",
    at: placeLabel(angle),
    link: linkMeta(number),
    hover:
      `<b>meta-latent ${number}</b>` +
      listLines(
        users.map(
          ({ place, latent, weight }) => `latent ${latent} of ${escapePlotly(labels[place])}: ${formatNumber(weight)}`,
        ),
      ),
  }));
  const centre = {
    position: [0, 0],
    label: String(entry.meta_latent),
    at: "bottom center",
    link: linkMeta(entry.meta_latent),
    hover: `<b>meta-latent ${entry.meta_latent}</b><br>used by ${pluralize(entry.used_by, "latent")}`,
  };
  const bySAE = labels.map((label, place) => {
    const marker = { color: cssColor(sizeColor(place)), size: 11, symbol: SYMBOL_NAMES[place % SYMBOL_NAMES.length] };
    const nodes = latentNodes.filter((node) => node.place === place);
    return drawNodes(nodes, label, marker, { colorName: sizeColor(place) });
  });
  const sizes = others.map(({ users }) => Math.min(16, 4 + 2 * users.length));
  const range = [-OUTER - 0.25, OUTER + 0.25];
  return {
    traces: [
      ...drawEdges(outer, "line"),
      ...drawEdges(inner, "plain"),
      drawNodes(otherNodes, "other meta-latents", { color: cssColor("plain"), size: sizes }),
      ...bySAE,
      drawNodes(
        [centre],
        "meta-latent",
        { color: cssColor("text"), size: 20 },
        { textfont: { size: 13, color: cssColor("text") } },
      ),
    ],
    layout: { margin: { l: 8, r: 8, t: 8, b: 8 }, xaxis: { visible: false, range }, yaxis: { visible: false, range } },
  };
}

// Add the graph around a meta-latent of a study, with a choice of the meta-latent. title: of the chart
function addNeighbourhoods(content, study, title) {
  const entries = study.neighbourhoods;
  if (!entries.length) return;
  const labels = study.points.map((folder) => findLabel(study.sweep, folder));
  let entry = entries[0];
  const options = entries.map(({ meta_latent, used_by }, at) => [
    String(at),
    `${meta_latent}, used by ${pluralize(used_by, "latent")}`,
  ]);
  const select = makeSelect(options, "0", (at) => {
    entry = entries[Number(at)];
    refresh([chart]);
  });
  const charts = make("div.charts.wide.graph");
  content.append(make("div.controls", {}, makeLabelled("Meta-latent in the centre", select)), charts);
  const hasCards = cardSets.some(({ cards }) => cards.length);
  const chart = addChart(
    charts,
    title,
    "In the centre the meta-latent; around it the latents in whose directions it has the largest weights, and outside " +
      "their other meta-latents, with numbers where several of these latents use them. Wider lines are larger weights." +
      (hasCards ? " Click a latent to open its card, if it has one." : ""),
    (hidden) => buildNeighbourhood(study, entry, labels, hidden),
    () => [
      ["SAE", "number of the latent", "meta-latent", "weight"],
      entry.latents.flatMap(([place, latent, , parts]) =>
        parts.map(([number, weight]) => [labels[place], latent, number, weight]),
      ),
    ],
  );
}
