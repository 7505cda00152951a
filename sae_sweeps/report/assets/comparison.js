"use strict";
// Charts of finished points: NMSE and CE degradation against L0 and dictionary size, dead latents, speed and cost.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "hexagon", "cross"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const MAX_LEGEND_ENTRIES = 16; // with more series there is no legend, only tooltips
const MAX_LABELLED_BARS = 12; // with more bars there are no labels, only tooltips

const distinctValues = (field) => [...new Set(report.points.map((point) => point[field]))].sort((a, b) => a - b);
const sizes = distinctValues("dict_size");
const kValues = distinctValues("k");

const firstPoint = (row) => row.points[0];
const architectureColor = (architecture) => cssColor(architecture in ARCHITECTURE_NAMES ? architecture : "other");

// Group rows by architecture and dict_size or k, as [name, rows], sorted by name.
function groupSeries(rows, field) {
  const found = new Map();
  for (const row of rows) {
    const point = firstPoint(row);
    const name =
      `${report.sweeps.length > 1 ? `${point.sweep}: ` : ""}${ARCHITECTURE_NAMES[point.architecture] ?? point.architecture}` +
      (field === "k" ? `, k ${point.k}` : ` ${point.dict_size}`);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return [...found].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

// The Pareto front, from left to right: rows for which no other row is lower in both x and y.
function paretoFront(rows, x, y) {
  const ordered = [...rows].sort((a, b) => x(a) - x(b) || y(a) - y(b));
  let lowest = Infinity;
  return ordered.filter((row) => y(row) < lowest && ((lowest = y(row)), true));
}

function makeTooltip(row) {
  const numbers = ["nmse", "l0", "ce_degradation", "dead_fraction"].filter((name) => row.mean[name] != null);
  const lines = numbers.map(
    (name) =>
      `${metricTitle(name)} ${formatMetric(name, row.mean[name])}` +
      (row.spread[name] != null ? ` ± ${formatMetric(name, row.spread[name])}` : ""),
  );
  return [`<b>${escapePlotly(row.label)}</b>`, ...lines].join("<br>") + "<extra></extra>";
}

// A series of points; `number` selects its symbol and dash.
function scatter(name, rows, x, y, number, more = {}) {
  const point = firstPoint(rows[0]);
  const errorBars = (metric) => {
    const values = rows.map((row) => row.spread[metric] ?? 0);
    return values.some(Boolean) ? { array: values, thickness: 1, width: 3 } : undefined;
  };
  return {
    name: escapePlotly(name),
    x: rows.map((row) => row.mean[x] ?? firstPoint(row)[x]),
    y: rows.map((row) => row.mean[y]),
    type: "scatter",
    mode: "markers",
    error_x: metrics.has(x) ? errorBars(x) : undefined,
    error_y: errorBars(y),
    marker: { color: architectureColor(point.architecture), symbol: SYMBOLS[number % SYMBOLS.length], size: 9 },
    line: { color: architectureColor(point.architecture), dash: DASHES[number % DASHES.length], width: 1.5 },
    hovertemplate: rows.map(makeTooltip),
    legendgroup: name,
    ...more,
  };
}

function hasLegend(traces) {
  const names = new Set(traces.map((trace) => trace.name));
  return names.size > 1 && names.size <= MAX_LEGEND_ENTRIES;
}

function plotAgainstL0(metric) {
  const traces = [];
  for (const [name, members] of groupSeries(
    finishedRows().filter((row) => row.mean[metric] != null),
    "dict_size",
  )) {
    const number = sizes.indexOf(firstPoint(members[0]).dict_size);
    const front = paretoFront(
      members,
      (row) => row.mean.l0,
      (row) => row.mean[metric],
    );
    if (front.length > 1) {
      traces.push({
        ...scatter(name, front, "l0", metric, number),
        mode: "lines",
        showlegend: false,
        hoverinfo: "skip",
        hovertemplate: undefined,
        error_x: undefined,
        error_y: undefined,
      });
    }
    traces.push(scatter(name, members, "l0", metric, number));
  }
  const layout = { showlegend: hasLegend(traces), xaxis: { title: "L0" }, yaxis: { title: metricTitle(metric) } };
  return { traces, layout };
}

const hasRepeatedSizes = (rows) => new Set(rows.map((row) => firstPoint(row).dict_size)).size < rows.length;

function plotAgainstSize(metric) {
  const traces = groupSeries(
    finishedRows().filter((row) => row.mean[metric] != null),
    "k",
  ).map(([name, members]) => {
    const ordered = [...members].sort((a, b) => firstPoint(a).dict_size - firstPoint(b).dict_size);
    return scatter(name, ordered, "dict_size", metric, kValues.indexOf(firstPoint(members[0]).k), {
      mode: hasRepeatedSizes(ordered) ? "markers" : "lines+markers",
    });
  });
  const xaxis = { title: "dictionary size", type: "log", tickvals: sizes, ticktext: sizes.map(String) };
  return { traces, layout: { showlegend: hasLegend(traces), xaxis, yaxis: { title: metricTitle(metric) } } };
}

// A bar per row; only a few bars have room for labels.
function plotBars(getValue, title, format, more = {}) {
  const members = finishedRows().filter((row) => getValue(row) != null);
  const hasLabels = members.length <= MAX_LABELLED_BARS;
  const trace = {
    type: "bar",
    x: members.map((row) => escapePlotly(row.label)),
    y: members.map(getValue),
    name: title,
    marker: { color: members.map((row) => architectureColor(firstPoint(row).architecture)) },
    text: hasLabels ? members.map((row) => format(getValue(row))) : undefined,
    textposition: "outside",
    cliponaxis: false,
    hovertemplate: members.map(
      (row) => `<b>${escapePlotly(row.label)}</b><br>${title} ${format(getValue(row))}<extra></extra>`,
    ),
  };
  return {
    traces: [trace],
    layout: {
      showlegend: false,
      margin: { l: 50, r: 12, t: 24, b: 40 },
      xaxis: { title: hasLabels ? "" : "points", showticklabels: hasLabels, tickangle: -35 },
      yaxis: { title, ...more },
    },
  };
}

function plotCost() {
  const timed = finishedRows().filter((row) => seconds(row) != null);
  const traces = groupSeries(timed, "dict_size").map(([name, members]) => {
    const trace = scatter(name, members, "l0", "nmse", sizes.indexOf(firstPoint(members[0]).dict_size));
    const tooltips = members.map(
      (row) =>
        `<b>${escapePlotly(row.label)}</b><br>${seconds(row).toFixed(1)} s<br>` +
        `NMSE ${formatMetric("nmse", row.mean.nmse)}<extra></extra>`,
    );
    return { ...trace, x: members.map(seconds), error_x: undefined, hovertemplate: tooltips };
  });
  return {
    traces,
    layout: {
      showlegend: hasLegend(traces),
      xaxis: { title: "own time, s", rangemode: "tozero" },
      yaxis: { title: "NMSE" },
    },
  };
}

function addComparison() {
  const charts = document.getElementById("sparsity-charts");
  const added = [];
  const add = (parent, ...given) => added.push(addChart(parent, ...given));
  const hasFronts = groupSeries(finishedRows(), "dict_size").some(([, members]) => members.length > 1);
  const hasSeeds = report.groups.length < report.points.length;
  document.getElementById("sparsity-caption").textContent =
    "The finished points that the table shows. Lower is better." +
    (hasFronts ? " Lines: Pareto front of each architecture and dictionary size." : "") +
    (hasSeeds ? " Error bars: standard deviation over seeds." : "");
  add(charts, "NMSE against L0", "", () => plotAgainstL0("nmse"));
  add(charts, "CE degradation against L0", "", () => plotAgainstL0("ce_degradation"));
  add(charts, "NMSE against dictionary size", "", () => plotAgainstSize("nmse"));
  add(charts, "CE degradation against dictionary size", "", () => plotAgainstSize("ce_degradation"));
  add(charts, "Dead latents", "", () =>
    plotBars(
      (row) => row.mean.dead_fraction,
      "dead latents",
      (value) => formatMetric("dead_fraction", value),
      { tickformat: ".0%" },
    ),
  );
  const costs = document.getElementById("cost-charts");
  add(costs, "NMSE against training time", "", plotCost);
  add(costs, "Training speed", "", () =>
    plotBars(speed, "tokens per second", (value) => Math.round(value).toLocaleString("en-US")),
  );
  return added;
}
