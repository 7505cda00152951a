"use strict";
// Tables of the settings in which points differ, and of those that all points share.

const MAX_SETTINGS_COLUMNS = 12;

// The number of values of a setting. Commit and package versions are those of results: a point without results does not
// differ in them.
function countValues(points, key) {
  const isOfResults = key === "commit" || key.startsWith("packages.");
  const asked = isOfResults ? points.filter((point) => point.metrics) : points;
  return new Set(asked.map((point) => point.settings[key])).size;
}

function drawSettings() {
  const all = selectedOrShownPoints();
  const points = all.slice(0, MAX_SETTINGS_COLUMNS);
  const keys = [...new Set(points.flatMap((point) => Object.keys(point.settings)))];
  const differing = keys.filter((key) => countValues(points, key) > 1).sort();
  const cells = (key) => points.map((point) => make("td.wrap", {}, point.settings[key] ?? "–"));
  fillTable(
    document.getElementById("settings-table"),
    ["Setting", ...points.map((point) => point.label)],
    differing.map((key) => [make("th", { scope: "row" }, key), ...cells(key)]),
  );
  const which = selectedPoints().length ? "selected points" : "points";
  document.getElementById("settings-status").textContent =
    (all.length > points.length
      ? `The first ${points.length} of ${all.length} ${which}; select the points to compare.`
      : describeChosen()) + (differing.length ? "" : " Their settings do not differ.");
}

function drawSharedSettings() {
  const rows = Object.entries(report.shared)
    .sort()
    .map(([key, value]) => [make("th", { scope: "row" }, key), make("td.wrap", {}, value)]);
  fillTable(document.getElementById("shared-table"), ["Setting", "Value"], rows);
}
