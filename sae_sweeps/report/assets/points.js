"use strict";
// The table of points: filters, sorting, a baseline, grouping of seeds. Its filters and selection also apply to the
// sections below.

const view = {
  text: "",
  fields: {}, // field -> required value
  grouped: report.groups.length < report.points.length, // points that differ only in their seed are one row
  sort: "nmse",
  descending: false,
  baseline: null, // the label of its row
  selected: new Set(), // keys of points
  withoutFailed: false, // whether failed points are left out
};

const firstPoint = (row) => row.points[0];

// Rows of one point each, or of points that differ only in their seed: label, points, mean and spread of each metric.
function buildRows() {
  const points = report.points.filter((point) => !view.withoutFailed || point.state !== "failed");
  if (!view.grouped)
    return points.map((point) => ({
      label: point.label,
      points: [point],
      mean: point.metrics ?? {},
      spread: {},
      intervals: point.intervals,
    }));
  const built = report.groups.map((group, number) => ({
    ...group,
    points: points.filter((point) => point.group === number),
  }));
  return built.filter((row) => row.points.length);
}

let rows = buildRows();
view.baseline = rows.find((row) => row.mean.nmse != null)?.label ?? null;

function passesFilters(row) {
  const words = splitWords(view.text);
  const text =
    `${row.label} ${row.points.map((point) => point.folder.replace(/-[0-9a-f]{8}$/, "")).join(" ")}`.toLowerCase();
  return (
    words.every((word) => text.includes(word)) &&
    Object.entries(view.fields).every(([field, value]) => row.points.some((point) => String(point[field]) === value))
  );
}

// The rows that pass the filters, and those of them with results.
const shownRows = () => rows.filter(passesFilters);
const finishedRows = () => shownRows().filter((row) => row.mean.nmse != null);

const shownPoints = () => shownRows().flatMap((row) => row.points);
const selectedPoints = () => shownPoints().filter((point) => view.selected.has(point.key));

// The points whose curves and settings are shown: the selected ones among those shown, or all if none is selected.
function selectedOrShownPoints() {
  const selected = selectedPoints();
  return selected.length ? selected : shownPoints();
}

// How many points a section shows, and which.
const describeChosen = () =>
  selectedPoints().length
    ? `${pluralize(selectedPoints().length, "selected point")}.`
    : `${pluralize(shownPoints().length, "point")}, as in the table above.`;

function meanOverSeeds(row, getValue) {
  const values = row.points.map(getValue).filter((value) => value != null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

const speed = (row) => meanOverSeeds(row, (point) => point.training?.tokens_per_second);
const seconds = (row) => meanOverSeeds(row, (point) => point.training?.seconds);

// On how many held-out activations the metrics of points were measured: dead latents are those active on none of them.
const heldOut = (points) => [...new Set(points.map((point) => point.metrics?.held_out_tokens).filter(Boolean))];
const judgedOn = (points) => {
  const numbers = heldOut(points).sort((a, b) => a - b);
  const ends = [...new Set([numbers[0], numbers.at(-1)])].map((number) => number?.toLocaleString("en-US"));
  return numbers.length ? `on ${ends.join(" to ")} tokens` : "";
};

const COLUMNS = [
  { name: "label", title: "SAE", getValue: (row) => row.label },
  { name: "state", title: "State", getValue: (row) => row.points.map((point) => point.state).join(" ") },
  ...report.metrics.map((metric) => ({
    name: metric.name,
    title: metricTitle(metric.name),
    explained: explainPointMetric(metric),
    best: metric.best,
    getValue: (row) => row.mean[metric.name],
    format: (value) => formatMetric(metric.name, value),
    getSpread: (row) => row.spread[metric.name],
  })),
  {
    name: "tokens_per_second",
    title: "own tokens/s",
    best: "max",
    getValue: speed,
    explained: "training tokens per second of the point's own training steps",
    format: (value) => (value == null ? "–" : Math.round(value).toLocaleString("en-US")),
  },
  {
    name: "seconds",
    title: "own time, s",
    best: "min",
    getValue: seconds,
    explained: "time of the point's own training steps, without the language model",
    format: (value) => (value == null ? "–" : value.toFixed(1)),
  },
];

function sortRows(unsorted) {
  const column = COLUMNS.find((candidate) => candidate.name === view.sort);
  const sign = view.descending ? -1 : 1;
  return [...unsorted].sort((first, second) => {
    const [a, b] = [column.getValue(first), column.getValue(second)];
    if (a == null || b == null) return (a == null) - (b == null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
}

const WORSE_THAN_MEAN = "worse than the mean";
const isWorseThanMean = (row) => row.mean.nmse >= 1;

// The rows with the best value of a column in their contest: among those of equal k, model, hook and text. A row that is
// alone in it, shares its value, or is worse than the mean is not the best.
function findBest(column, candidates) {
  const contests = new Map(); // contest -> rows, the best first
  if (!column.best) return new Set();
  for (const row of candidates) {
    if (column.getValue(row) == null || isWorseThanMean(row)) continue;
    const { contest } = firstPoint(row);
    contests.set(contest, [...(contests.get(contest) ?? []), row]);
  }
  const sign = column.best === "min" ? 1 : -1;
  const best = new Set();
  for (const members of contests.values()) {
    members.sort((a, b) => sign * (column.getValue(a) - column.getValue(b)));
    const [first, second] = members;
    if (second && column.getValue(first) !== column.getValue(second)) best.add(first);
  }
  return best;
}

function makeDifference(column, row, baseline) {
  const [value, base] = [column.getValue(row), baseline && column.getValue(baseline)];
  if (!baseline || row === baseline || value == null || !base) return null;
  const inPoints = metrics.get(column.name)?.unit === "%"; // percentages differ in percentage points
  const amount = Number((100 * (inPoints ? value - base : (value - base) / Math.abs(base))).toFixed(1));
  const text = `${amount > 0 ? "+" : amount < 0 ? "−" : "±"}${Math.abs(amount).toFixed(1)}${inPoints ? " pp" : "%"}`;
  const good = column.best && amount !== 0 ? (amount < 0 === (column.best === "min") ? "better" : "worse") : "";
  return make("small", { class: good }, text);
}

const isJudgedApart = heldOut(report.points).length > 1;

function drawPoints() {
  const sorted = sortRows(shownRows());
  const baseline = rows.find((row) => row.label === view.baseline);
  const table = document.getElementById("points-table");
  const best = new Map(COLUMNS.map((column) => [column, findBest(column, sorted)]));
  table.tHead.replaceChildren(make("tr", {}, ...COLUMNS.map(makeHeading)));
  const body = sorted.map((row) => {
    const cells = COLUMNS.slice(2).map((column) => {
      const value = column.getValue(row);
      const isBest = best.get(column).has(row);
      const cell = makeNumberCell(`${isBest ? "★ " : ""}${column.format(value)}`, value, column.name);
      if (isBest) cell.classList.add("best");
      const spread = column.getSpread?.(row);
      if (spread != null) cell.append(make("small", { "data-spread": spread }, `± ${column.format(spread)}`));
      cell.append(makeDifference(column, row, baseline) ?? "");
      if (column.name === "dead_fraction" && isJudgedApart) cell.append(make("small", {}, judgedOn(row.points)));
      if (column.name === "nmse" && isWorseThanMean(row)) cell.append(make("small.worse.wraps", {}, WORSE_THAN_MEAN));
      return cell;
    });
    const selected = row.points.some((point) => view.selected.has(point.key));
    return make(
      `tr${selected ? ".selected" : ""}`,
      { "data-point": row.points.map((point) => point.key).join(" ") },
      make("th", { scope: "row" }, makeRowHeader(row, selected, row === baseline)),
      makeStateCell(row),
      ...cells,
    );
  });
  table.tBodies[0].replaceChildren(...body);
  const noun = view.grouped ? "rows (points that differ only in their seed are one row)" : "points";
  updateAddress();
  document.getElementById("points-status").textContent =
    `${sorted.length} of ${rows.length} ${noun}` +
    (baseline && sorted.length > 1 ? `; small figures: difference from the baseline, ${baseline.label}` : "");
}

function makeHeading(column) {
  const sorts = view.sort === column.name;
  const attributes = { type: "button", onclick: () => sortBy(column.name), ...explainedBy(column.explained) };
  const judged = column.name === "dead_fraction" ? make("small", {}, judgedOn(report.points)) : null;
  const button = make("button", attributes, column.title, judged);
  const order = sorts ? (view.descending ? "descending" : "ascending") : null;
  return make(
    `th${column.format ? ".number" : ""}`,
    { scope: "col", "aria-sort": order, "data-name": column.name },
    button,
  );
}

function makeRowHeader(row, selected, isBaseline) {
  const toggle = (event) => {
    for (const point of row.points) view.selected[event.target.checked ? "add" : "delete"](point.key);
    event.target.closest("tr").classList.toggle("selected", event.target.checked);
    onSelectionChange();
  };
  const box = make("input", { type: "checkbox", checked: selected, onchange: toggle });
  const seeds = row.points.length > 1 ? `, ${row.points.length} seeds` : "";
  return make(
    "label",
    {},
    box,
    makeSwatch(styleOf(firstPoint(row))),
    make("span", {}, row.label + seeds + (isBaseline ? " (baseline)" : "")),
  );
}

function makeStateCell(row) {
  const cell = make("td");
  for (const point of row.points) {
    const text = point.state === "done" ? "done" : point.state + (point.step ? ` at step ${point.step}` : "");
    if (point.state === "done" && cell.lastChild?.textContent === "done") continue;
    cell.append(make(`div.state.${point.state}`, {}, text));
    if (point.reason && point.state !== "done") cell.append(make(`div.reason.${point.state}`, {}, point.reason));
  }
  return cell;
}

function sortBy(name) {
  const metric = metrics.get(name);
  view.descending = view.sort === name ? !view.descending : metric?.best === "max" || name === "tokens_per_second";
  view.sort = name;
  drawPoints();
  document.querySelector(`#points-table th[data-name="${name}"] button`).focus();
}
