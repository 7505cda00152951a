"use strict";
// Charts: Plotly draws them when they scroll into view, and again when their data or the theme changes.

let plotly = null;
const charts = new Set();

// Plotly is a compressed block of the page; it is loaded before the first chart is drawn.
function loadPlotly() {
  plotly ??= decodeBlock("plotly").then((text) => {
    // It also adds the styles of maps, which the page's policy refuses and no chart needs, unless this element exists.
    for (const [, id] of text.matchAll(/getElementById\("([0-9a-f]{64})"\)/g))
      document.head.append(make("meta", { id }));
    document.head.append(make("script", {}, text));
    return window.Plotly;
  });
  return plotly;
}

const viewObserver = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const chart = entry.target.chart;
      chart.visible = entry.isIntersecting;
      if (chart.visible && chart.stale) draw(chart);
    }
  },
  { rootMargin: "250px" },
);

// Add a figure with a title, a caption, a chart, its legend, and its numbers as a table. `build` returns Plotly's traces
// and layout, and the entries of the legend where they are not the traces; it is called with the names of the entries
// that are hidden. `listNumbers` returns the table's titles and rows, where they are not the plotted coordinates.
function addChart(parent, title, caption, build, listNumbers) {
  const area = make("div.chart", { role: "group", "aria-label": title });
  const legend = make("ul.legend", { "aria-label": `${title}: legend` });
  const numbers = make("details", {}, make("summary", {}, "Numbers"));
  const note = caption ? make("p.note", {}, caption) : null;
  const chart = { area, legend, build, title, hidden: new Set(), stale: true, visible: false };
  chart.listNumbers = listNumbers ?? (() => listCoordinates(chart));
  parent.append(make("figure", {}, make("h3", {}, title), note, area, legend, makeChartTools(chart), numbers));
  drawLegend(chart, buildChart(chart).entries); // now, as a legend that comes later moves what is below it
  numbers.addEventListener("toggle", () => numbers.open && drawNumbers(chart, numbers));
  area.chart = chart;
  charts.add(chart);
  viewObserver.observe(area);
  return chart;
}

// Remove the charts of an element before it is emptied.
function dropCharts(parent) {
  for (const chart of charts) {
    if (!parent.contains(chart.area)) continue;
    viewObserver.unobserve(chart.area);
    if (window.Plotly && chart.drawn) window.Plotly.purge(chart.area);
    charts.delete(chart);
  }
}

// Redraw charts: the visible ones after the next frame, so that a click gets its response first; the others when they
// scroll into view.
function refresh(stale = charts) {
  for (const chart of stale) {
    chart.stale = true;
    if (chart.visible) requestAnimationFrame(() => setTimeout(() => chart.stale && charts.has(chart) && draw(chart)));
  }
}

// On paper, which is A4 or letter, charts have one width or, in a section of one column, another, in pixels.
const PRINTED_WIDTH = { usual: 316, wide: 664 };
let isPrinting = false;

// What a chart shows at the moment: traces, layout with ranges and style, and the entries of its legend.
function buildChart(chart) {
  const { traces, layout, entries = entriesOf(traces) } = chart.build(chart.hidden);
  const shown = traces.filter((trace) => !trace.colorName || !chart.hidden.has(traceName(trace)));
  const styled = withStyle(shown.length ? withRanges(layout, shown) : EMPTY_LAYOUT);
  if (isPrinting) styled.width = chart.area.closest(".wide") ? PRINTED_WIDTH.wide : PRINTED_WIDTH.usual;
  return { traces: shown, layout: styled, entries };
}

async function draw(chart) {
  chart.stale = false;
  const Plotly = await loadPlotly();
  const { traces, layout, entries } = buildChart(chart);
  chart.options ??= makeOptions(chart); // the same for each draw: with others Plotly would begin from scratch
  drawLegend(chart, entries);
  await Plotly.react(chart.area, traces, layout, chart.options);
  if (!chart.drawn)
    chart.area.on(
      "plotly_click",
      ({ points: [point] }) => point.data.links && (location.hash = point.data.links[point.pointIndex]),
    );
  chart.drawn = true;
}

const makeOptions = (chart) => ({
  responsive: true,
  displaylogo: false,
  // Nothing leaves the page: there is no button that uploads a chart, and no address for it.
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
  modeBarButtonsToAdd: [makeDownloadButton(chart)],
  ...(isTouchScreen.matches ? { displayModeBar: false } : {}),
});

const PICTURE = { width: 1200, height: 800, font: 17 };
const LEGEND_LINE = 28; // pixels of an entry of a legend in a picture

// The figure of a picture of a chart: as on the page, and as it is zoomed there, with its title and its legend.
function makePicture(chart) {
  const { traces, layout, entries } = buildChart(chart);
  const listed = legendTraces(entries.filter((entry) => !chart.hidden.has(entry.name)));
  const { width, height, font } = PICTURE;
  const zoomed = (axis) => ({
    ...layout[axis],
    ...(chart.drawn && !chart.stale ? { range: chart.area.layout[axis].range } : {}),
  });
  return {
    data: [...traces.map((trace) => ({ ...trace, showlegend: false })), ...listed],
    layout: {
      ...layout,
      title: { text: escapePlotly(chart.title), font: { size: 1.3 * font } },
      width,
      height: height + LEGEND_LINE * listed.length,
      font: { ...layout.font, size: font },
      xaxis: zoomed("xaxis"),
      yaxis: zoomed("yaxis"),
      paper_bgcolor: cssColor("back"),
      showlegend: listed.length > 0,
      margin: { ...layout.margin, t: 80, l: 90, b: 70 },
    },
  };
}

const makeDownloadButton = (chart) => ({
  name: "picture",
  title: "Download the chart as a PNG",
  icon: window.Plotly.Icons.camera,
  click: () => savePicture(chart, "png"),
});

// On touch screens a swipe over a chart scrolls the page.
const isTouchScreen = matchMedia("(pointer: coarse)");

const EMPTY_LAYOUT = {
  xaxis: { visible: false },
  yaxis: { visible: false },
  annotations: [{ text: "Nothing to show", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }],
};

function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function withStyle(layout) {
  const line = {
    gridcolor: cssColor("grid"),
    zerolinecolor: cssColor("line"),
    linecolor: cssColor("line"),
    automargin: true,
  };
  const axis = (given = {}) => ({ ...line, ...given, title: { text: given.title ?? "", standoff: 8 } });
  const { xaxis, yaxis, ...rest } = layout;
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: {
      color: cssColor("text"),
      size: 12,
      family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    },
    margin: { l: 50, r: 12, t: 12, b: 40 },
    hoverlabel: {
      bgcolor: cssColor("panel"),
      bordercolor: cssColor("line"),
      font: { color: cssColor("text") },
      align: "left",
    },
    hovermode: "closest",
    dragmode: isTouchScreen.matches ? false : "zoom",
    showlegend: false, // it is a list below the chart
    legend: { orientation: "v", yref: "container", y: 0, yanchor: "bottom", x: 0 }, // of a picture
    modebar: { bgcolor: "rgba(0,0,0,0)", color: cssColor("soft"), activecolor: cssColor("accent") },
    xaxis: axis(xaxis),
    yaxis: axis(yaxis),
    ...rest,
  };
}

const ABOVE = { y: 1, yref: "paper", yanchor: "bottom", showarrow: false };
const SPAN = { yref: "paper", y0: 0, y1: 1 };

// A labelled vertical line.
function verticalLine(x, text, colorName, dash = "dash") {
  return {
    shape: { ...SPAN, type: "line", x0: x, x1: x, line: { color: cssColor(colorName), width: 1.2, dash } },
    annotation: { ...ABOVE, x, text: escapePlotly(text), font: { size: 11, color: cssColor(colorName) } },
  };
}

// A labelled horizontal line.
function horizontalLine(y, text, colorName, isLog) {
  return {
    shape: {
      type: "line",
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: y,
      y1: y,
      line: { color: cssColor(colorName), width: 1.2, dash: "dash" },
    },
    annotation: {
      x: 1,
      xref: "paper",
      xanchor: "right",
      y: isLog ? Math.log10(y) : y,
      yanchor: "bottom",
      showarrow: false,
      text: escapePlotly(text),
      font: { size: 11, color: cssColor(colorName) },
    },
  };
}

// A labelled band between two values of x.
function verticalBand(x0, x1, text, colorName) {
  return {
    shape: { ...SPAN, type: "rect", x0, x1, fillcolor: cssColor(colorName), opacity: 0.1, line: { width: 0 } },
    annotation: { ...ABOVE, x: (x0 + x1) / 2, text: escapePlotly(text), font: { size: 11, color: cssColor("soft") } },
  };
}

// The layout of lines and bands.
const layoutOfMarks = (marks) => ({
  shapes: marks.map((mark) => mark.shape),
  annotations: marks.map((mark) => mark.annotation),
  margin: { l: 50, r: 12, t: 24, b: 40 },
});

const MAX_LISTED_ROWS = 500;

// The plotted coordinates of a chart, as titles and rows of the series, if there are several, x and y.
function listCoordinates(chart) {
  const { traces, layout } = chart.build(chart.hidden);
  const rows = [];
  const read = (value) => (typeof value === "string" ? unescapePlotly(value) : value);
  for (const trace of traces) {
    if (trace.hoverinfo === "skip") continue;
    for (let at = 0; at < (trace.x ?? []).length; at++)
      rows.push([trace.labels?.[at] ?? read(trace.name ?? ""), read(trace.x[at]), read(trace.y[at])]);
  }
  const first = traces.some((trace) => trace.labels) ? "SAE" : "series";
  const titles = [first, read(layout.xaxis?.title ?? ""), read(layout.yaxis?.title ?? "")];
  const hasSeries = new Set(rows.map(([name]) => name)).size > 1;
  return hasSeries ? [titles, rows] : [titles.slice(1), rows.map((row) => row.slice(1))];
}

function drawNumbers(chart, details) {
  const [titles, rows] = chart.listNumbers();
  const toCell = (value) =>
    typeof value === "number" ? make("td.number", {}, formatNumber(value)) : make("td", {}, value ?? "–");
  const table = fillTable(
    make("table"),
    titles.map((title) => makeExplained(title, explainTitle(title))),
    rows.slice(0, MAX_LISTED_ROWS).map((row) => row.map(toCell)),
  );
  const box = make("div.scroll", { role: "region", tabindex: 0, "aria-label": `${chart.title}: numbers` }, table);
  details.replaceChildren(details.firstChild, box);
  if (rows.length > MAX_LISTED_ROWS)
    details.append(make("p", {}, `The first ${MAX_LISTED_ROWS} of ${rows.length} rows.`));
}
