"use strict";
// Legends: a list of what a chart shows, below it. Each entry can be pressed to hide what it names, and to show it again.

const MAX_ENTRIES = 24;
const OPEN = { fill: "none", stroke: "currentColor", "stroke-width": 0.4 }; // of an open symbol, by its outline

const swatch = document.getElementById("swatch").content.firstElementChild;

// The line and the symbol of a style as a small picture; without a dash or a symbol, the other alone.
function makeSwatch({ color, symbol, dash }) {
  const svg = swatch.cloneNode(true);
  const [line, outline] = svg.children;
  svg.style.color = `var(--${color})`;
  if (!dash) line.remove();
  else if (dash !== "solid") line.setAttribute("stroke-dasharray", dash);
  if (symbol) outline.setAttribute("d", SYMBOLS[symbol.replace("-open", "")]);
  else outline.remove();
  if (symbol?.endsWith("-open"))
    for (const [name, value] of Object.entries(OPEN)) outline.setAttribute(name, value);
  return svg;
}

// The entries of traces that are not rows of the table. `colorName`: of a trace that the legend lists.
function entriesOf(traces) {
  const listed = traces.filter((trace) => trace.colorName);
  return listed.map((trace) => ({
    name: traceName(trace),
    short: traceName(trace),
    style: {
      color: trace.colorName,
      dash: trace.line && (trace.line.dash ?? "solid").replaceAll("px", ""),
      symbol: trace.type === "bar" || trace.mode?.includes("markers") ? (trace.marker?.symbol ?? "circle") : null,
    },
  }));
}

const traceName = (trace) => unescapePlotly(trace.name ?? "");

// List entries, { name, short, style } with `name` for the whole label, below a chart, if they are several.
function drawLegend(chart, entries) {
  const key = JSON.stringify(entries);
  if (chart.legendKey === key) return; // and the entry that was pressed keeps the focus
  chart.legendKey = key;
  const listed = entries.length > 1 ? entries.slice(0, MAX_ENTRIES) : [];
  const items = listed.map(({ name, short, style }) => {
    const isShown = !chart.hidden.has(name);
    const toggle = () => {
      if (!chart.hidden.delete(name)) chart.hidden.add(name);
      button.setAttribute("aria-pressed", !chart.hidden.has(name));
      refresh([chart]);
    };
    const button = make("button", { type: "button", title: name, "aria-pressed": String(isShown), onclick: toggle });
    button.append(makeSwatch(style), make("span", {}, short));
    return make("li", {}, button);
  });
  const more = entries.length - listed.length;
  if (listed.length && more) items.push(make("li.note", {}, `and ${more} more: hover over the chart for their names`));
  chart.legend.replaceChildren(...items);
}

// Traces that draw a legend into a picture of a chart, where there is no list.
const legendTraces = (entries) =>
  entries.slice(0, entries.length > 1 ? MAX_ENTRIES : 0).map(({ name, style: { color, symbol, dash } }) => ({
    type: "scatter",
    mode: [dash && "lines", symbol && "markers"].filter(Boolean).join("+"),
    name: escapePlotly(name),
    x: [null],
    y: [null],
    line: { color: cssColor(color), dash: plotlyDash(dash ?? "solid") },
    marker: { color: cssColor(color), symbol, size: 9 },
  }));
