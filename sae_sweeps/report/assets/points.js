"use strict";
// The table of points: filters, sorting, a baseline, seeds together or apart. What is shown here is shown below.

const FIELDS = ["sweep", "architecture", "dict_size", "k", "state"];
const view = {
  text: "",
  fields: {}, // field -> value that it must have
  together: report.groups.length < report.points.length, // whether points that differ in their seed are one row
  sort: "nmse",
  descending: false,
  baseline: null, // label of a row
  chosen: new Set(), // keys of points
};

// A row is a point, or points that differ in their seed alone: label, points, mean and spread of each metric.
function rowsOf(together) {
  if (!together) {
    return report.points.map((point) => ({
      label: point.label,
      points: [point],
      mean: point.metrics ?? {},
      spread: {},
    }));
  }
  return report.groups.map((group, number) => ({
    ...group,
    points: report.points.filter((point) => point.group === number),
  }));
}

let rows = rowsOf(view.together);
view.baseline = rows.find((row) => row.mean.nmse != null)?.label ?? null;

function matches(row) {
  const words = wordsOf(view.text);
  const text =
    `${row.label} ${row.points.map((point) => point.folder.replace(/-[0-9a-f]{8}$/, "")).join(" ")}`.toLowerCase();
  return (
    words.every((word) => text.includes(word)) &&
    Object.entries(view.fields).every(([field, value]) => row.points.some((point) => String(point[field]) === value))
  );
}

// The rows that pass the filters, and of these those that have results.
const shownRows = () => rows.filter(matches);
const finishedRows = () => shownRows().filter((row) => row.mean.nmse != null);

const shownPoints = () => shownRows().flatMap((row) => row.points);
const tickedPoints = () => shownPoints().filter((point) => view.chosen.has(point.key));

// The points that curves and settings are of: of those that are shown the ticked ones, or all.
function chosenPoints() {
  const ticked = tickedPoints();
  return ticked.length ? ticked : shownPoints();
}

function mean(row, of) {
  const values = row.points.map(of).filter((value) => value != null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

const speed = (row) => mean(row, (point) => point.training?.tokens_per_second);
const seconds = (row) => mean(row, (point) => point.training?.seconds);

const COLUMNS = [
  { name: "label", title: "SAE", of: (row) => row.label },
  { name: "state", title: "state", of: (row) => row.points.map((point) => point.state).join(" ") },
  ...report.metrics.map((metric) => ({
    name: metric.name,
    title: titled(metric.name),
    explained: metric.explained,
    best: metric.best,
    of: (row) => row.mean[metric.name],
    text: (value) => shown(metric.name, value),
    spread: (row) => row.spread[metric.name],
  })),
  {
    name: "tokens_per_second",
    title: "own tok/s",
    best: "max",
    of: speed,
    explained: "of a point's own training steps",
    text: (value) => (value == null ? "–" : Math.round(value).toLocaleString("en-US")),
  },
  {
    name: "seconds",
    title: "own time, s",
    best: "min",
    of: seconds,
    explained: "of a point's own training steps",
    text: (value) => (value == null ? "–" : value.toFixed(1)),
  },
];

function sorted(some) {
  const column = COLUMNS.find((one) => one.name === view.sort);
  const sign = view.descending ? -1 : 1;
  return [...some].sort((first, second) => {
    const [a, b] = [column.of(first), column.of(second)];
    if (a == null || b == null) return (a == null) - (b == null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
}

function bestOf(column, some) {
  const values = some.map(column.of).filter((value) => value != null);
  if (!column.best || new Set(values).size < 2) return null;
  return column.best === "min" ? Math.min(...values) : Math.max(...values);
}

function difference(column, row, baseline) {
  const [value, base] = [column.of(row), baseline && column.of(baseline)];
  if (!baseline || row === baseline || value == null || !base) return null;
  const inPoints = metrics.get(column.name)?.unit === "%"; // of shares the difference itself, not a share of a share
  const amount = Number((100 * (inPoints ? value - base : (value - base) / Math.abs(base))).toFixed(1));
  const text = `${amount > 0 ? "+" : amount < 0 ? "−" : "±"}${Math.abs(amount).toFixed(1)}${inPoints ? " pp" : "%"}`;
  const good = column.best && amount !== 0 ? (amount < 0 === (column.best === "min") ? "better" : "worse") : "";
  return make("small", { class: good }, text);
}

function drawPoints() {
  const some = sorted(shownRows());
  const baseline = rows.find((row) => row.label === view.baseline);
  const table = document.getElementById("points-table");
  const best = new Map(COLUMNS.map((column) => [column, bestOf(column, some)]));
  table.tHead.replaceChildren(make("tr", {}, ...COLUMNS.map(heading)));
  const body = some.map((row) => {
    const cells = COLUMNS.slice(2).map((column) => {
      const value = column.of(row);
      const isBest = value != null && value === best.get(column);
      const one = cell(`${isBest ? "★ " : ""}${column.text(value)}`, value, column.name);
      if (isBest) one.classList.add("best");
      const spread = column.spread?.(row);
      if (spread != null) one.append(make("small", { "data-spread": spread }, `± ${column.text(spread)}`));
      one.append(difference(column, row, baseline) ?? "");
      return one;
    });
    const chosen = row.points.some((point) => view.chosen.has(point.key));
    return make(
      `tr${chosen ? ".chosen" : ""}`,
      { "data-point": row.points.map((point) => point.key).join(" ") },
      make("th", { scope: "row" }, tick(row, chosen, row === baseline)),
      states(row),
      ...cells,
    );
  });
  table.tBodies[0].replaceChildren(...body);
  const of = view.together ? "rows, of points that differ in more than their seed" : "points";
  document.getElementById("points-said").textContent =
    `${some.length} of ${rows.length} ${of}` +
    (baseline ? `; small figures: the difference to the baseline, ${baseline.label}` : "");
}

function heading(column) {
  const sorts = view.sort === column.name;
  const arrow = sorts ? (view.descending ? " ▼" : " ▲") : "";
  const button = make(
    "button",
    { type: "button", title: column.explained ?? null, onclick: () => sortBy(column.name) },
    column.title + arrow,
  );
  const order = sorts ? (view.descending ? "descending" : "ascending") : null;
  return make(
    `th${column.text ? ".number" : ""}`,
    { scope: "col", "aria-sort": order, "data-name": column.name },
    button,
  );
}

function tick(row, chosen, isBaseline) {
  const toggle = (event) => {
    for (const point of row.points) view.chosen[event.target.checked ? "add" : "delete"](point.key);
    event.target.closest("tr").classList.toggle("chosen", event.target.checked);
    changed("chosen");
  };
  const box = make("input", { type: "checkbox", checked: chosen, onchange: toggle });
  const seeds = row.points.length > 1 ? `, ${row.points.length} seeds` : "";
  return make(
    "label",
    {},
    box,
    make("span.swatch", {
      style: `background:var(--${first(row).architecture in NAMES ? first(row).architecture : "other"})`,
    }),
    make("span", {}, row.label + seeds + (isBaseline ? " (baseline)" : "")),
  );
}

function states(row) {
  const cell = make("td");
  for (const point of row.points) {
    const text = point.state === "done" ? "done" : point.state + (point.step ? ` at step ${point.step}` : "");
    if (point.state === "done" && cell.lastChild?.textContent === "done") continue;
    cell.append(make(`div.state.${point.state}`, {}, text));
    if (point.reason && point.state !== "done") cell.append(make("div.reason", {}, point.reason));
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

function drawFilters() {
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  const find = make("input", {
    type: "search",
    placeholder: "words, e.g. topk 6144",
    oninput: (event) => {
      view.text = event.target.value;
      changed("filter");
    },
  });
  form.append(labelled("find", find));
  for (const field of FIELDS) {
    const values = [...new Set(report.points.map((point) => String(point[field])))];
    if (values.length < 2) continue;
    values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const options = [["", "all"], ...values.map((value) => [value, NAMES[value] ?? value])];
    form.append(
      labelled(
        field.replace("_", " "),
        choice(options, "", (value) => {
          if (value) view.fields[field] = value;
          else delete view.fields[field];
          changed("filter");
        }),
      ),
    );
  }
  if (report.groups.length < report.points.length) {
    const options = [
      ["yes", "together: mean ± spread"],
      ["", "apart"],
    ];
    form.append(
      labelled(
        "seeds",
        choice(options, "yes", (value) => {
          view.together = Boolean(value);
          const before = rows.find((row) => row.label === view.baseline)?.points[0];
          rows = rowsOf(view.together);
          view.baseline = rows.find((row) => row.points.includes(before))?.label ?? null;
          drawBaselines();
          changed("filter");
        }),
      ),
    );
  }
  form.append(
    labelled(
      "baseline",
      make("select", {
        id: "baseline",
        onchange: (event) => {
          view.baseline = event.target.value || null;
          drawPoints();
        },
      }),
    ),
  );
  form.append(
    make(
      "button",
      {
        type: "button",
        onclick: () => {
          view.chosen.clear();
          drawPoints();
          changed("chosen");
        },
      },
      "untick all",
    ),
  );
  drawBaselines();
  const known = COLUMNS.filter((column) => column.explained).map((column) =>
    make("div", {}, make("dt", {}, column.title), make("dd", {}, column.explained)),
  );
  document.getElementById("columns").append(make("dl.explained", {}, ...known));
}

function drawBaselines() {
  const labels = rows.filter((row) => row.mean.nmse != null).map((row) => row.label);
  const options = ["", ...labels].map((value) =>
    make("option", { value, selected: value === (view.baseline ?? "") }, value || "none"),
  );
  document.getElementById("baseline").replaceChildren(...options);
}
