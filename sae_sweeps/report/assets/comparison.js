"use strict";
// Charts of finished points: NMSE and CE degradation against L0 and dictionary size, dead latents, speed and cost.

const MAX_LABELLED_BARS = 12; // with more bars there are no labels, only tooltips

const sizes = [...new Set(report.points.map((point) => point.dict_size))].sort((a, b) => a - b);

// Group rows whose points differ only in `field` and seed: a line can join them.
function groupSeries(rows, field) {
  const found = new Map();
  for (const row of rows) {
    const parts = Object.keys(firstPoint(row).parts).filter((name) => name !== field && name !== "seed");
    const name = joinParts(firstPoint(row), parts);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return [...found.values()];
}

// The rows of a chart, without those that its legend hides.
const rowsOf = (metric, hidden) => finishedRows().filter((row) => row.mean[metric] != null && !hidden.has(row.label));

// The entries of its legend.
function listEntries(metric) {
  return rowsOf(metric, new Set()).map((row) => {
    const { color, symbol } = styleOf(firstPoint(row));
    return { name: row.label, short: shortLabel(row), style: { color, symbol } };
  });
}

// Error bars of standard deviations; undefined if there are none. They have one colour, whatever those of the points.
function makeErrorBars(rows, metric) {
  const array = rows.map((row) => row.spread[metric] ?? 0);
  return array.some(Boolean) ? { array, thickness: 1, width: 3, color: cssColor("plain") } : undefined;
}

const isHigherBetter = (metric) => metrics.get(metric).best === "max";

// The Pareto front, from left to right: rows for which no other row is lower in both x and y.
function paretoFront(rows, x, y) {
  const ordered = [...rows].sort((a, b) => x(a) - x(b) || y(a) - y(b));
  let lowest = Infinity;
  return ordered.filter((row) => y(row) < lowest && ((lowest = y(row)), true));
}

function makeTooltip(row) {
  const numbers = ["nmse", "l0", "ce_degradation", "mcc", "feature_f1", "dead_fraction"].filter((name) => row.mean[name] != null);
  const lines = numbers.map(
    (name) =>
      `${metricTitle(name)} ${formatMetric(name, row.mean[name])}` +
      (row.spread[name] != null ? ` ± ${formatMetric(name, row.spread[name])}` : "") +
      (name === "nmse" && isWorseThanMean(row) ? ` (${WORSE_THAN_MEAN})` : ""),
  );
  return [`<b>${escapePlotly(row.label)}</b>`, ...lines].join("<br>") + "<extra></extra>";
}

// The points of rows that a line can join, each in its own style. `getX`: a row's place on the axis of x.
function scatter(rows, getX, metric, more = {}) {
  const styles = rows.map((row) => styleOf(firstPoint(row)));
  return {
    labels: rows.map((row) => row.label),
    x: rows.map(getX),
    y: rows.map((row) => row.mean[metric]),
    type: "scatter",
    mode: "markers",
    error_y: makeErrorBars(rows, metric),
    marker: { color: styles.map(({ color }) => cssColor(color)), symbol: styles.map(({ symbol }) => symbol), size: 9 },
    hovertemplate: rows.map(makeTooltip),
    ...more,
  };
}

// A line through rows, below their points: in their colour, or grey if they have several.
function joinRows(rows, getX, metric) {
  const colors = new Set(rows.map((row) => styleOf(firstPoint(row)).color));
  return {
    x: rows.map(getX),
    y: rows.map((row) => row.mean[metric]),
    type: "scatter",
    mode: "lines",
    hoverinfo: "skip",
    line: { color: cssColor(colors.size === 1 ? [...colors][0] : "plain"), width: 1.5 },
  };
}

// The band of the intervals of rows that a line joins, below it; none if one of them has no interval.
function makeBand(rows, getX, metric) {
  const ends = rows.map((row) => row.intervals[metric]);
  if (rows.length < 2 || !ends.every(Boolean)) return [];
  const x = rows.map(getX);
  const { line } = joinRows(rows, getX, metric);
  return [
    {
      x: [...x, ...[...x].reverse()],
      y: [...ends.map(([, high]) => high), ...ends.map(([low]) => low).reverse()],
      type: "scatter",
      mode: "lines",
      hoverinfo: "skip",
      line: { width: 0 },
      fill: "toself",
      fillcolor: line.color,
      opacity: 0.15,
    },
  ];
}

// The axis of a metric's values, and the line of an NMSE of 1 if there is such a value.
function layoutOfMetric(metric, rows) {
  const values = rows.map((row) => row.mean[metric]);
  const isLog = isSpreadOut(values);
  const marks =
    metric === "nmse" && values.some((value) => value >= 1) ? [horizontalLine(1, "the mean", "bad", isLog)] : [];
  const yaxis = { title: metricTitle(metric), type: isLog ? "log" : "linear", exponentformat: "e" };
  return { ...layoutOfMarks(marks), yaxis };
}

function plotAgainstL0(metric, hidden) {
  const getX = (row) => row.mean.l0;
  const rows = rowsOf(metric, hidden);
  const traces = groupSeries(rows, "k").flatMap((members) => {
    const front = paretoFront(members, getX, (row) => (isHigherBetter(metric) ? -1 : 1) * row.mean[metric]);
    const line = front.length > 1 ? [...makeBand(front, getX, metric), joinRows(front, getX, metric)] : [];
    return [...line, scatter(members, getX, metric, { error_x: makeErrorBars(members, "l0") })];
  });
  return { traces, layout: { ...layoutOfMetric(metric, rows), xaxis: { title: "L0" } }, entries: listEntries(metric) };
}

function plotAgainstSize(metric, hidden) {
  const getX = (row) => firstPoint(row).dict_size;
  const rows = rowsOf(metric, hidden);
  const traces = groupSeries(rows, "dict_size").flatMap((members) => {
    const ordered = [...members].sort((a, b) => getX(a) - getX(b));
    const isLine = ordered.length > 1 && new Set(ordered.map(getX)).size === ordered.length;
    const line = isLine ? [...makeBand(ordered, getX, metric), joinRows(ordered, getX, metric)] : [];
    return [...line, scatter(ordered, getX, metric)];
  });
  const xaxis = { title: "dictionary size", type: "log", tickvals: sizes, ticktext: sizes.map(String) };
  return { traces, layout: { ...layoutOfMetric(metric, rows), xaxis }, entries: listEntries(metric) };
}

// Add a chart with a bar per row; only a few bars have room for labels.
function addBars(parent, chartTitle, caption, getValue, title, format, more = {}) {
  const listRows = () => finishedRows().filter((row) => getValue(row) != null);
  const build = () => {
    const members = listRows();
    const hasLabels = members.length <= MAX_LABELLED_BARS;
    const trace = {
      type: "bar",
      x: members.map((row) => escapePlotly(shortLabel(row))),
      y: members.map(getValue),
      marker: { color: members.map((row) => cssColor(styleOf(firstPoint(row)).color)) },
      text: hasLabels ? members.map((row) => format(getValue(row))) : undefined,
      textposition: "outside",
      cliponaxis: false,
      hovertemplate: members.map(
        (row) => `<b>${escapePlotly(row.label)}</b><br>${title} ${format(getValue(row))}<extra></extra>`,
      ),
    };
    const xaxis = { title: hasLabels ? "" : "points", type: "category", showticklabels: hasLabels, tickangle: -35 };
    const layout = { margin: { l: 50, r: 12, t: 24, b: 40 }, xaxis, yaxis: { title, ...more } };
    return { traces: members.length ? [trace] : [], layout };
  };
  const listNumbers = () => [["SAE", title], listRows().map((row) => [row.label, getValue(row)])];
  return addChart(parent, chartTitle, caption, build, listNumbers);
}

function plotCost(hidden) {
  const rows = rowsOf("nmse", hidden).filter((row) => seconds(row) != null);
  const hovertemplate = rows.map(
    (row) =>
      `<b>${escapePlotly(row.label)}</b><br>${seconds(row).toFixed(1)} s<br>` +
      `NMSE ${formatMetric("nmse", row.mean.nmse)}<extra></extra>`,
  );
  return {
    traces: rows.length ? [scatter(rows, seconds, "nmse", { hovertemplate })] : [],
    layout: { ...layoutOfMetric("nmse", rows), xaxis: { title: "own time, s", rangemode: "tozero" } },
    entries: listEntries("nmse"),
  };
}

function addComparison() {
  const charts = document.getElementById("sparsity-charts");
  const added = [];
  const add = (parent, ...given) => added.push(addChart(parent, ...given));
  const hasFronts = groupSeries(finishedRows(), "k").some((members) => members.length > 1);
  const hasIntervals = rows.some((row) => row.intervals.nmse);
  const hasSeeds = report.groups.length < report.points.length;
  // synthetic activations have planted features in place of a language model
  const compared = ["nmse", "ce_degradation", "mcc", "feature_f1"].filter((name) => metrics.has(name));
  const higher = compared.filter(isHigherBetter);
  document.getElementById("sparsity-caption").textContent =
    "The finished points that the table shows. " +
    (higher.length ? `Lower NMSE and higher ${higher.map(metricTitle).join(" and ")} are better.` : "Lower is better.") +
    (hasFronts ? " Lines: Pareto front over k of SAEs that are otherwise alike." : "") +
    (hasSeeds ? " Error bars: standard deviation over seeds." : "") +
    (hasIntervals
      ? " Bands: 95 % intervals of each SAE by itself. All are measured on the same data, so two SAEs whose bands overlap" +
        " can differ clearly: see Differences."
      : "");
  for (const [axis, plot] of [
    ["L0", plotAgainstL0],
    ["dictionary size", plotAgainstSize],
  ])
    for (const name of compared)
      add(charts, `${metrics.get(name).title} against ${axis}`, "", (hidden) => plot(name, hidden));
  const judged = judgedOn(report.points);
  added.push(
    addBars(
      charts,
      "Dead latents",
      judged && `Latents that are active on none of the held-out activations: judged ${judged}.`,
      (row) => row.mean.dead_fraction,
      "dead latents",
      (value) => formatMetric("dead_fraction", value),
      { tickformat: "~%" },
    ),
  );
  added.push(...addSparsity(charts));
  const costs = document.getElementById("cost-charts");
  add(costs, "NMSE against training time", "", plotCost);
  const formatSpeed = (value) => Math.round(value).toLocaleString("en-US");
  added.push(addBars(costs, "Training speed", "", speed, "tokens per second", formatSpeed));
  return added;
}
