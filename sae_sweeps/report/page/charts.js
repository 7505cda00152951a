"use strict";
// Charts: drawn by Plotly when they come into view, again when what they show or the theme has changed.

let plotly = null;
const charts = new Set();

// Plotly itself is in the page, packed; it is run once, when the first chart is to be drawn.
function library() {
  plotly ??= unpack("plotly").then((text) => {
    document.head.append(make("script", {}, text));
    return window.Plotly;
  });
  return plotly;
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const chart = entry.target.chart;
      chart.visible = entry.isIntersecting;
      if (chart.visible && chart.stale) draw(chart);
    }
  },
  { rootMargin: "250px" },
);

// A figure with a title, a chart, and its numbers as a table. `build` returns Plotly's traces and layout.
function addChart(parent, title, about, build) {
  const area = make("div.chart", { role: "group", "aria-label": `${title}. ${about}` });
  const numbers = make("details", {}, make("summary", {}, "Numbers"));
  parent.append(make("figure", {}, make("h3", {}, title), area, numbers));
  const chart = { area, build, stale: true, visible: false, title };
  numbers.addEventListener("toggle", () => numbers.open && tabulate(chart, numbers));
  area.chart = chart;
  charts.add(chart);
  seen.observe(area);
  return chart;
}

// Forget the charts in an element that is about to be emptied.
function dropCharts(parent) {
  for (const chart of charts) {
    if (!parent.contains(chart.area)) continue;
    seen.unobserve(chart.area);
    if (window.Plotly && chart.drawn) window.Plotly.purge(chart.area);
    charts.delete(chart);
  }
}

// Have charts drawn anew: those in view soon, after what was clicked has been answered, the others when they come into it.
function refresh(some = charts) {
  for (const chart of some) {
    chart.stale = true;
    if (chart.visible) requestAnimationFrame(() => setTimeout(() => chart.stale && charts.has(chart) && draw(chart)));
  }
}

async function draw(chart) {
  chart.stale = false;
  const Plotly = await library();
  const { traces, layout } = chart.build();
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  await Plotly.react(chart.area, traces, styled(layout), options);
  chart.drawn = true;
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function styled(layout) {
  const line = { gridcolor: color("grid"), zerolinecolor: color("line"), linecolor: color("line"), automargin: true };
  const axis = (given = {}) => ({ ...line, ...given, title: { text: given.title ?? "", standoff: 8 } });
  const { xaxis, yaxis, legend, ...rest } = layout;
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("text"), size: 12, family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif" },
    margin: { l: 50, r: 12, t: 12, b: 40 },
    hoverlabel: { bgcolor: color("panel"), bordercolor: color("line"), font: { color: color("text") }, align: "left" },
    hovermode: "closest",
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0, ...legend },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("soft"), activecolor: color("accent") },
    xaxis: axis(xaxis),
    yaxis: axis(yaxis),
    ...rest,
  };
}

const ROWS = 500; // of a chart's numbers that are listed

function tabulate(chart, details) {
  const rows = [];
  for (const trace of chart.build().traces) {
    if (trace.hoverinfo === "skip") continue;
    const x = trace.x ?? [];
    for (let at = 0; at < x.length && rows.length < ROWS; at++) {
      const number = (value) => (typeof value === "number" ? make("td.number", {}, brief(value)) : make("td", {}, value ?? "–"));
      rows.push([trace.name ?? "", number(x[at]), number(trace.y[at])]);
    }
  }
  const { xaxis = {}, yaxis = {} } = chart.build().layout;
  const table = fill(make("table"), ["", xaxis.title ?? "", yaxis.title ?? ""], rows);
  const box = make("div.scroll", { role: "region", tabindex: 0, "aria-label": `${chart.title}: numbers` }, table);
  details.replaceChildren(details.firstChild, box);
  if (rows.length === ROWS) details.append(make("p", {}, `The first ${ROWS} are listed.`));
}
