"use strict";
// Charts of finished points: against L0 and dictionary size, dead latents, speed and cost.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "hexagon", "cross"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const SERIES_NAMED = 16; // in a legend; more are told by the pointer alone

const different = (field) => [...new Set(report.points.map((point) => point[field]))].sort((a, b) => a - b);
const sizes = different("dict_size");
const sparsities = different("k");

const first = (row) => row.points[0];
const hue = (architecture) => color(architecture in NAMES ? architecture : "other");

// Rows by an architecture and one more field, in the order of the architectures and of that field.
function series(some, field) {
  const found = new Map();
  for (const row of some) {
    const point = first(row);
    const name =
      `${report.sweeps.length > 1 ? `${point.sweep}: ` : ""}${NAMES[point.architecture] ?? point.architecture}` +
      (field === "k" ? `, k ${point.k}` : ` ${point.dict_size}`);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return [...found].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

// Those that no other one has both a smaller x and a smaller y than, from left to right.
function front(some, x, y) {
  const ordered = [...some].sort((a, b) => x(a) - x(b) || y(a) - y(b));
  let lowest = Infinity;
  return ordered.filter((row) => y(row) < lowest && ((lowest = y(row)), true));
}

function told(row) {
  const numbers = ["nmse", "l0", "ce_degradation", "dead_fraction"].filter((name) => row.mean[name] != null);
  const lines = numbers.map(
    (name) =>
      `${titled(name)} ${shown(name, row.mean[name])}` +
      (row.spread[name] != null ? ` ± ${shown(name, row.spread[name])}` : ""),
  );
  return [`<b>${plain(row.label)}</b>`, ...lines].join("<br>") + "<extra></extra>";
}

function scatter(name, some, x, y, number, more = {}) {
  const point = first(some[0]);
  const spread = (of) => {
    const values = some.map((row) => row.spread[of] ?? 0);
    return values.some(Boolean) ? { array: values, thickness: 1, width: 3 } : undefined;
  };
  return {
    name: plain(name),
    x: some.map((row) => row.mean[x] ?? first(row)[x]),
    y: some.map((row) => row.mean[y]),
    type: "scatter",
    mode: "markers",
    error_x: metrics.has(x) ? spread(x) : undefined,
    error_y: spread(y),
    marker: { color: hue(point.architecture), symbol: SYMBOLS[number % SYMBOLS.length], size: 9 },
    line: { color: hue(point.architecture), dash: DASHES[number % DASHES.length], width: 1.5 },
    hovertemplate: some.map(told),
    legendgroup: name,
    ...more,
  };
}

function named(traces) {
  const names = new Set(traces.map((trace) => trace.name));
  return names.size > 1 && names.size <= SERIES_NAMED;
}

function againstL0(metric) {
  const traces = [];
  for (const [name, some] of series(
    finishedRows().filter((row) => row.mean[metric] != null),
    "dict_size",
  )) {
    const number = sizes.indexOf(first(some[0]).dict_size);
    const edge = front(
      some,
      (row) => row.mean.l0,
      (row) => row.mean[metric],
    );
    if (edge.length > 1) {
      traces.push({
        ...scatter(name, edge, "l0", metric, number),
        mode: "lines",
        showlegend: false,
        hoverinfo: "skip",
        hovertemplate: undefined,
        error_x: undefined,
        error_y: undefined,
      });
    }
    traces.push(scatter(name, some, "l0", metric, number));
  }
  const layout = { showlegend: named(traces), xaxis: { title: "L0" }, yaxis: { title: titled(metric) } };
  return { traces, layout };
}

const repeated = (some) => new Set(some.map((row) => first(row).dict_size)).size < some.length;

function againstSize(metric) {
  const traces = series(
    finishedRows().filter((row) => row.mean[metric] != null),
    "k",
  ).map(([name, some]) => {
    const ordered = [...some].sort((a, b) => first(a).dict_size - first(b).dict_size);
    return scatter(name, ordered, "dict_size", metric, sparsities.indexOf(first(some[0]).k), {
      mode: repeated(ordered) ? "markers" : "lines+markers",
    });
  });
  const xaxis = { title: "dictionary size", type: "log", tickvals: sizes, ticktext: sizes.map(String) };
  return { traces, layout: { showlegend: named(traces), xaxis, yaxis: { title: titled(metric) } } };
}

// A bar for each row; more than fit are told by the pointer alone.
function bars(of, title, text, more = {}) {
  const some = finishedRows().filter((row) => of(row) != null);
  const trace = {
    type: "bar",
    x: some.map((row) => plain(row.label)),
    y: some.map(of),
    name: title,
    marker: { color: some.map((row) => hue(first(row).architecture)) },
    text: some.length <= 12 ? some.map((row) => text(of(row))) : undefined,
    textposition: "outside",
    cliponaxis: false,
    hovertemplate: some.map((row) => `<b>${plain(row.label)}</b><br>${title} ${text(of(row))}<extra></extra>`),
  };
  const few = some.length <= 12;
  return {
    traces: [trace],
    layout: {
      showlegend: false,
      margin: { l: 50, r: 12, t: 24, b: 40 },
      xaxis: { title: few ? "" : "points", showticklabels: few, tickangle: -35 },
      yaxis: { title, ...more },
    },
  };
}

function cost() {
  const some = finishedRows().filter((row) => seconds(row) != null);
  const traces = series(some, "dict_size").map(([name, members]) => {
    const trace = scatter(name, members, "l0", "nmse", sizes.indexOf(first(members[0]).dict_size));
    const told = members.map(
      (row) =>
        `<b>${plain(row.label)}</b><br>${seconds(row).toFixed(1)} s<br>NMSE ${shown("nmse", row.mean.nmse)}<extra></extra>`,
    );
    return { ...trace, x: members.map(seconds), error_x: undefined, hovertemplate: told };
  });
  return {
    traces,
    layout: {
      showlegend: named(traces),
      xaxis: { title: "own time, s", rangemode: "tozero" },
      yaxis: { title: "NMSE" },
    },
  };
}

function addComparison() {
  const charts = document.getElementById("sparsity-charts");
  const some = [];
  const add = (parent, ...given) => some.push(addChart(parent, ...given));
  const several = series(finishedRows(), "dict_size").some(([, some]) => some.length > 1);
  const seeds = report.groups.length < report.points.length;
  document.getElementById("sparsity-said").textContent =
    "The points of the table that are done and shown; lower is better." +
    (several ? " A line joins the points of an architecture and size that no other of them beats in both." : "") +
    (seeds ? " Bars are the standard deviation over seeds." : "");
  add(charts, "NMSE against L0", "", () => againstL0("nmse"));
  add(charts, "CE degradation against L0", "", () => againstL0("ce_degradation"));
  add(charts, "NMSE against dictionary size", "", () => againstSize("nmse"));
  add(charts, "CE degradation against dictionary size", "", () => againstSize("ce_degradation"));
  add(charts, "Dead latents", "", () =>
    bars(
      (row) => row.mean.dead_fraction,
      "dead latents",
      (value) => shown("dead_fraction", value),
      { tickformat: ".0%" },
    ),
  );
  const costs = document.getElementById("cost-charts");
  add(costs, "Error for the time", "", cost);
  add(costs, "Speed of the steps", "", () =>
    bars(speed, "tokens per second", (value) => Math.round(value).toLocaleString("en-US")),
  );
  return some;
}
