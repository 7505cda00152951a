"use strict";
// Tables as text and CSV files, and charts as CSV files and pictures. All are made in the page.

const PNG_SCALE = 2; // pixels of a PNG in each direction per unit
const FORMULA = /^[=+\-@]/; // the start of a text that a spreadsheet would run

// A value as text without what a spreadsheet would run; nothing for a missing value.
function toPlainText(value) {
  if (value == null || Number.isNaN(value)) return "";
  return typeof value === "string" && FORMULA.test(value) ? `'${value}` : String(value);
}

const quoteCell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const toCSV = (rows) => rows.map((row) => `${row.map(toPlainText).map(quoteCell).join(",")}\n`).join("");
const toTabs = (rows) =>
  rows.map((row) => row.map((value) => toPlainText(value).replace(/\s+/g, " ")).join("\t")).join("\n");

// The text or number of a cell: a number with all of its digits, where the cell has them.
function readCell(cell) {
  if (cell.dataset.value != null) return Number(cell.dataset.value);
  const parts = [...cell.childNodes].filter((part) => part.nodeName !== "SMALL").map((part) => part.textContent.trim());
  const text = parts.filter(Boolean).join("; ");
  return text === "–" ? "" : text;
}

const readSpread = (cell) => Number(cell.querySelector("[data-spread]")?.dataset.spread ?? NaN);

// The title of a column, with what stands below it.
function readTitle(cell) {
  const parts = (cell.querySelector("button") ?? cell).childNodes;
  return [...parts].map((part) => part.textContent.trim()).join(" ");
}

// The titles and rows of a table. Spreads (standard deviations) get columns of their own, and the folders of points one.
function readTable(table) {
  const [head, ...body] = [...table.rows].map((row) => [...row.cells]);
  const points = [...table.rows].map((row) => row.dataset.point);
  const hasPoints = points.some((point) => point != null);
  const hasSpread = head.map((_, at) => body.some((row) => row[at]?.querySelector("[data-spread]")));
  const titles = head.map(readTitle);
  const rows = [
    titles.flatMap((title, at) => (hasSpread[at] ? [title, `${title}, standard deviation`] : [title])),
    ...body.map((row) =>
      row.flatMap((cell, at) => (hasSpread[at] ? [readCell(cell), readSpread(cell)] : [readCell(cell)])),
    ),
  ];
  return hasPoints ? rows.map((row, at) => [...row, points[at] ?? "points"]) : rows;
}

function saveFile(name, extension, type, content) {
  const start = `${report.title} ${name}`.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: `${start.slice(0, 100)}.${extension}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const focused = document.activeElement; // some browsers have no clipboard for files opened from disk
    const area = make("textarea", {}, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused.focus();
  }
}

const makeTool = (text, title, onclick) => make("button", { type: "button", title, onclick }, text);

// Buttons that copy rows, the first of which has the titles, or save them as CSV, and further buttons.
function makeTools(name, listRows, ...further) {
  const note = make("output");
  const copy = async () => {
    const rows = listRows();
    await copyText(toTabs(rows));
    note.textContent = `copied ${pluralize(rows.length - 1, "row")}`;
  };
  return make(
    "div.tools",
    { role: "group", "aria-label": `Copy or save: ${name}` },
    note,
    makeTool("copy", "copy as text with tabs, for a spreadsheet", copy),
    makeTool("CSV", "save as a CSV file", () => saveFile(name, "csv", "text/csv", toCSV(listRows()))),
    ...further,
  );
}

// An element with buttons above it that copy and save its rows.
const makeExported = (name, listRows, element) => make("div.exported", {}, makeTools(name, listRows), element);

// A table in a box that scrolls, with buttons that copy and save it.
function makeTableBox(name, table) {
  const box = make("div.scroll", { role: "region", tabindex: 0, "aria-label": name }, table);
  return makeExported(name, () => readTable(table), box);
}

// Add the buttons to the tables that the page has from the start.
function addTableTools() {
  for (const box of document.querySelectorAll(".scroll:has(> table)"))
    box.before(makeTools(box.getAttribute("aria-label"), () => readTable(box.querySelector("table"))));
}

// Buttons that copy and save the numbers of a chart, and save its picture.
function makeChartTools(chart) {
  const listRows = () => {
    const [titles, rows] = chart.listNumbers();
    return [titles, ...rows];
  };
  const makePictureTool = (format, title) => makeTool(format.toUpperCase(), title, () => savePicture(chart, format));
  return makeTools(
    chart.title,
    listRows,
    makePictureTool("png", "save as a picture"),
    makePictureTool("svg", "save as a vector graphic"),
  );
}

// Save the chart as a picture, in the colours of the theme.
async function savePicture(chart, format) {
  const Plotly = await loadPlotly();
  const picture = makePicture(chart);
  const { width, height } = picture.layout;
  const scale = format === "png" ? PNG_SCALE : 1;
  const content = await Plotly.toImage(picture, { format, width, height, scale, imageDataOnly: true });
  if (format === "svg") saveFile(chart.title, format, "image/svg+xml", content);
  else
    saveFile(
      chart.title,
      format,
      "image/png",
      Uint8Array.from(atob(content), (byte) => byte.charCodeAt(0)),
    );
}
