"use strict";
// The page's data, compressed blocks, formatting of numbers, and HTML elements.

// The page's policy refuses styles that a script sets as the text of an attribute, as Plotly and `make` do, and allows
// those that it sets as properties.
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else setAttribute.call(this, name, value);
};

const report = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(report.metrics.map((metric) => [metric.name, metric]));
const ARCHITECTURE_NAMES = Object.assign(Object.create(null), report.architectures);

const blocks = new Map(); // name -> promise of its value

// The JSON value of a compressed block, decoded on first use.
function readBlock(name) {
  if (!blocks.has(name)) blocks.set(name, decodeBlock(name).then(JSON.parse));
  return blocks.get(name);
}

async function decodeBlock(name) {
  const encoded = atob(document.getElementById(`block-${name}`).textContent);
  const bytes = Uint8Array.from(encoded, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Create an element from a tag with classes ("td.number"), attributes, and content: text or elements.
function make(tagWithClasses, attributes = {}, ...content) {
  const [tag, ...classes] = tagWithClasses.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...content.filter((part) => part != null));
  return element;
}

// A control with its label above it, or next to it.
function makeLabelled(text, control, inline = false) {
  return inline ? make("label.inline", {}, control, text) : make("label", {}, text, control);
}

// A <select> of [value, text] options.
function makeSelect(options, selected, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(make("option", { value, selected: value === selected }, text));
  return select;
}

// A metric's value as text, formatted as on the command line.
function formatMetric(name, value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const metric = metrics.get(name);
  return metric.unit === "%" ? `${(100 * value).toFixed(metric.decimals - 2)}%` : value.toFixed(metric.decimals);
}

// Any number in about four digits.
function formatNumber(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e5 || (size < 1e-3 && size > 0)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function metricTitle(name) {
  const metric = metrics.get(name);
  return metric.unit === "nats" ? `${metric.title}, nats` : metric.title;
}

function pluralize(number, noun) {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

// A table cell with a number as text; the tooltip and `data-value` have all of its digits.
function makeNumberCell(text, value, name) {
  return make("td.number", { "data-value": value ?? null, "data-name": name ?? null, title: value ?? null }, text);
}

// Fill a table with rows of cells (elements or text). The first `textColumns` columns are text, the others numbers.
function fillTable(table, titles, rows, textColumns = titles.length) {
  const heads = titles.map((title, at) => make(at < textColumns ? "th" : "th.number", { scope: "col" }, title));
  const head = make("thead", {}, make("tr", {}, ...heads));
  const body = make("tbody");
  for (const row of rows)
    body.append(make("tr", {}, ...row.map((cell) => (cell instanceof Node ? cell : make("td", {}, cell)))));
  table.replaceChildren(head, body);
  return table;
}

// The words of a search query.
const splitWords = (text) => text.trim().toLowerCase().split(/\s+/).filter(Boolean);

// Text that Plotly shows as it is; Plotly interprets tags and %{templates}.
const escapePlotly = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "%&#123;");

// The text that Plotly shows.
const unescapePlotly = (text) =>
  text
    .replaceAll("<br>", " ")
    .replaceAll("%&#123;", "%{")
    .replaceAll("&gt;", ">")
    .replaceAll("&lt;", "<")
    .replaceAll("&amp;", "&");
