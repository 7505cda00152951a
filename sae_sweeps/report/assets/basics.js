"use strict";
// The data of the page, blocks that are unpacked when they are needed, numbers as text, elements.

const report = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(report.metrics.map((metric) => [metric.name, metric]));
const NAMES = report.architectures;

const unpacked = new Map();

// The value in a block, unpacked once.
function block(name) {
  if (!unpacked.has(name)) unpacked.set(name, unpack(name).then(JSON.parse));
  return unpacked.get(name);
}

async function unpack(name) {
  const packed = atob(document.getElementById(`block-${name}`).textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// An element: its tag with classes (td.number), attributes, and what is in it: text or elements.
function make(what, attributes = {}, ...content) {
  const [tag, ...classes] = what.split(".");
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

// A control with its label above it, or beside it.
function labelled(text, control, inline = false) {
  return inline ? make("label.inline", {}, control, text) : make("label", {}, text, control);
}

function choice(options, chosen, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(make("option", { value, selected: value === chosen }, text));
  return select;
}

// A metric's value as text, as the command line writes it.
function shown(name, value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const metric = metrics.get(name);
  return metric.unit === "%" ? `${(100 * value).toFixed(metric.decimals - 2)}%` : value.toFixed(metric.decimals);
}

// Any number in few digits.
function brief(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e5 || (size < 1e-3 && size > 0)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function titled(name) {
  const metric = metrics.get(name);
  return metric.unit === "nats" ? `${metric.title}, nats` : metric.title;
}

function count(number, noun) {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

// A cell that holds a number: its text, and the number itself for whoever wants all of its digits.
function cell(text, value, name) {
  return make("td.number", { "data-value": value ?? null, "data-name": name ?? null, title: value ?? null }, text);
}

// A table of rows; cells are elements or text. Of its columns so many are of text, before those of numbers.
function fill(table, titles, rows, texts = titles.length) {
  const heads = titles.map((title, at) => make(at < texts ? "th" : "th.number", { scope: "col" }, title));
  const head = make("thead", {}, make("tr", {}, ...heads));
  const body = make("tbody");
  for (const row of rows)
    body.append(make("tr", {}, ...row.map((one) => (one instanceof Node ? one : make("td", {}, one)))));
  table.replaceChildren(head, body);
  return table;
}

// What is searched for, word by word.
const wordsOf = (text) => text.trim().toLowerCase().split(/\s+/).filter(Boolean);

// Text as Plotly takes it, which reads tags and templates in what it shows.
const plain = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "%&#123;");
