"use strict";
// The controls above the table of points, and the definitions of its columns.

const FIELD_TITLES = {
  sweep: "Sweep",
  architecture: "Architecture",
  dict_size: "Dictionary size",
  k: "k",
  state: "State",
};

function drawFilters() {
  const form = document.getElementById("filters");
  form.replaceChildren();
  form.addEventListener("submit", (event) => event.preventDefault());
  const search = make("input", {
    type: "search",
    placeholder: "words, e.g. topk 6144",
    value: view.text,
    oninput: (event) => {
      view.text = event.target.value;
      onFilterChange();
    },
  });
  form.append(makeLabelled("Search", search));
  for (const [field, title] of Object.entries(FIELD_TITLES)) {
    const values = [...new Set(report.points.map((point) => String(point[field])))];
    if (values.length < 2) continue;
    values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const options = [["", "All"], ...values.map((value) => [value, ARCHITECTURE_NAMES[value] ?? value])];
    form.append(
      makeLabelled(
        title,
        makeSelect(options, view.fields[field] ?? "", (value) => {
          if (value) view.fields[field] = value;
          else delete view.fields[field];
          onFilterChange();
        }),
      ),
    );
  }
  if (report.groups.length < report.points.length) {
    const options = [
      ["yes", "Grouped: mean ± standard deviation"],
      ["", "Separate"],
    ];
    form.append(
      makeLabelled(
        "Seeds",
        makeSelect(options, view.grouped ? "yes" : "", (value) => {
          view.grouped = Boolean(value);
          rebuildRows();
        }),
      ),
    );
  }
  form.append(
    makeLabelled(
      "Baseline",
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
          view.selected.clear();
          drawPoints();
          onSelectionChange();
        },
      },
      "Clear selection",
    ),
  );
  drawBaselineOptions();
}

function drawDefinitions() {
  const definitions = COLUMNS.filter((column) => column.explained).map((column) =>
    make("div", {}, make("dt", {}, column.title), make("dd", {}, column.explained)),
  );
  document.getElementById("columns").append(make("dl.definitions", {}, ...definitions));
}

function drawBaselineOptions() {
  const labels = rows.filter((row) => row.mean.nmse != null).map((row) => row.label);
  const options = ["", ...labels].map((value) =>
    make("option", { value, selected: value === (view.baseline ?? "") }, value || "None"),
  );
  document.getElementById("baseline").replaceChildren(...options);
}

// Build the rows again, after a change of what a row is. The baseline stays, as far as it has a row.
function rebuildRows() {
  const earlier = rows.find((row) => row.label === view.baseline)?.points ?? [];
  rows = buildRows();
  view.baseline = rows.find((row) => row.points.some((point) => earlier.includes(point)))?.label ?? null;
  drawBaselineOptions();
  onFilterChange();
}

// A button that dismisses failures: their reasons above, and the rows and settings of failed points.
function addDismissal() {
  const failures = document.querySelector("header ul.failures");
  if (!failures) return;
  const button = make("button", { type: "button", id: "dismiss", "aria-pressed": "false" }, "Hide failures");
  button.addEventListener("click", () => {
    view.withoutFailed = !view.withoutFailed;
    drawDismissal();
    rebuildRows();
  });
  failures.after(button);
}

function drawDismissal() {
  const button = document.getElementById("dismiss");
  if (!button) return;
  document.querySelector("header ul.failures").hidden = view.withoutFailed;
  button.setAttribute("aria-pressed", String(view.withoutFailed));
}
