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

// A figure with a title, what it is about, a chart, and its numbers as a table. `build` returns Plotly's traces and layout;
// `listed`, if what is drawn is not what is to be read, titles and rows.
function addChart(parent, title, about, build, listed) {
  const area = make("div.chart", { role: "group", "aria-label": title });
  const numbers = make("details", {}, make("summary", {}, "Numbers"));
  parent.append(make("figure", {}, make("h3", {}, title), about ? make("p.note", {}, about) : null, area, numbers));
  const chart = { area, build, listed: listed ?? (() => drawnPoints(chart)), stale: true, visible: false, title };
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
  const options = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  if (byTouch.matches) options.displayModeBar = false;
  await Plotly.react(chart.area, traces, styled(traces.length ? layout : nothing), options);
  if (!chart.drawn)
    chart.area.on(
      "plotly_click",
      ({ points: [point] }) => point.data.links && (location.hash = point.data.links[point.pointIndex]),
    );
  chart.drawn = true;
}

// A swipe over a chart is to move the page.
const byTouch = matchMedia("(pointer: coarse)");

const nothing = {
  xaxis: { visible: false },
  yaxis: { visible: false },
  annotations: [
    { text: "nothing that is done passes the filter", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 },
  ],
};

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
    font: {
      color: color("text"),
      size: 12,
      family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    },
    margin: { l: 50, r: 12, t: 12, b: 40 },
    hoverlabel: { bgcolor: color("panel"), bordercolor: color("line"), font: { color: color("text") }, align: "left" },
    hovermode: "closest",
    dragmode: byTouch.matches ? false : "zoom",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, ...legend },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("soft"), activecolor: color("accent") },
    xaxis: axis(xaxis),
    yaxis: axis(yaxis),
    ...rest,
  };
}

const ABOVE = { y: 1, yref: "paper", yanchor: "bottom", showarrow: false };
const SPAN = { yref: "paper", y0: 0, y1: 1 };

// A vertical line with its name.
function mark(x, text, tint, dash = "dash") {
  return {
    shape: { ...SPAN, type: "line", x0: x, x1: x, line: { color: color(tint), width: 1.2, dash } },
    annotation: { ...ABOVE, x, text, font: { size: 11, color: color(tint) } },
  };
}

// A band between two values of x with its name.
function band(x0, x1, text, tint) {
  return {
    shape: { ...SPAN, type: "rect", x0, x1, fillcolor: color(tint), opacity: 0.1, line: { width: 0 } },
    annotation: { ...ABOVE, x: (x0 + x1) / 2, text, font: { size: 11, color: color("soft") } },
  };
}

const marked = (marks) => ({
  shapes: marks.map((one) => one.shape),
  annotations: marks.map((one) => one.annotation),
  margin: { l: 50, r: 12, t: 24, b: 40 },
});

const ROWS = 500; // of a chart's numbers that are listed

// What is drawn, as titles and rows.
function drawnPoints(chart) {
  const { traces, layout } = chart.build();
  const rows = [];
  for (const trace of traces) {
    if (trace.hoverinfo === "skip") continue;
    for (let at = 0; at < (trace.x ?? []).length; at++) rows.push([trace.name ?? "", trace.x[at], trace.y[at]]);
  }
  return [["", layout.xaxis?.title ?? "", layout.yaxis?.title ?? ""], rows];
}

function tabulate(chart, details) {
  const [titles, rows] = chart.listed();
  const number = (value) =>
    typeof value === "number" ? make("td.number", {}, brief(value)) : make("td", {}, value ?? "–");
  const table = fill(
    make("table"),
    titles,
    rows.slice(0, ROWS).map((row) => row.map(number)),
  );
  const box = make("div.scroll", { role: "region", tabindex: 0, "aria-label": `${chart.title}: numbers` }, table);
  details.replaceChildren(details.firstChild, box);
  if (rows.length > ROWS) details.append(make("p", {}, `The first ${ROWS} of ${rows.length} are listed.`));
}
