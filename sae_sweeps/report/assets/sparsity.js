"use strict";
// Charts of how many latents are active: on how many activations, and where in the sequence. A line per SAE.

let sparsity = null; // per point, once decoded

const sparsePoints = () => chooseLowest(shownPoints().filter((point) => point.has_sparsity));
const sparsityOf = (point) => sparsity?.[report.points.indexOf(point)];

// A line per SAE. `getLine`: x and y of a point's numbers, and how a value is described.
function plotSparsity(hidden, getLine, [xTitle, yTitle]) {
  const shown = sparsePoints();
  const traces = shown.flatMap((point) => {
    const numbers = sparsityOf(point);
    if (hidden.has(point.label) || !numbers) return [];
    const { template, ...line } = getLine(numbers);
    const hovertemplate = `<b>${escapePlotly(point.label)}</b><br>${template}<extra></extra>`;
    return [{ ...makeLine(point), ...line, hovertemplate }];
  });
  const layout = { xaxis: { title: xTitle }, yaxis: { title: yTitle, rangemode: "tozero" } };
  return { traces, layout, entries: shown.map(lineEntry) };
}

// Shares of the activations, divided by the width of the bins, so that those of different widths can be compared.
function histogramLine({ histogram: { width, counts } }) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const name = (from) => (width === 1 ? pluralize(from, "active latent") : `${from} to ${from + width - 1} active latents`);
  return {
    x: counts.map((_, bin) => bin * width + (width - 1) / 2),
    y: counts.map((count) => count / total / width),
    customdata: counts.map((count, bin) => [name(bin * width), pluralize(count, "activation")]),
    template: "%{customdata[0]}: %{customdata[1]}",
  };
}

function positionLine({ by_position: means }) {
  const known = [...means.keys()].filter((position) => means[position] != null);
  return { x: known, y: known.map((position) => means[position]), template: "position %{x}: %{y:.4g} active latents" };
}

const MAX_NAMED = 6; // points in the sentence below

// A sentence on BOS and other special tokens, which the lines leave out.
function describeSpecial() {
  const known = sparsePoints().filter((point) => sparsityOf(point)?.special.positions);
  const means = known.map((point) => `${formatNumber(sparsityOf(point).special.l0)} (${point.short})`);
  const listed = means.slice(0, MAX_NAMED).join("; ") + (means.length > MAX_NAMED ? "; ..." : "");
  return `Mean over the text, without BOS and other special tokens${listed && `, where it is: ${listed}`}.`;
}

// One or two charts, if a point has numbers of active latents.
function addSparsity(parent) {
  if (!report.points.some((point) => point.has_sparsity)) return [];
  const add = (title, caption, getLine, titles) =>
    addChart(parent, title, caption, (hidden) => plotSparsity(hidden, getLine, titles));
  const histogram = add("Active latents per activation", "", histogramLine, ["active latents", "share of activations"]);
  const positions = ["position in the sequence", "mean active latents"];
  const isText = report.points.some((point) => point.has_positions); // synthetic activations are in no sequence
  const byPosition = isText ? [add("Active latents by position", describeSpecial(), positionLine, positions)] : [];
  readBlock("sparsity").then((decoded) => {
    sparsity = decoded;
    for (const chart of byPosition) chart.area.previousElementSibling.textContent = describeSpecial();
    refresh([histogram, ...byPosition]);
  });
  return [histogram, ...byPosition];
}
