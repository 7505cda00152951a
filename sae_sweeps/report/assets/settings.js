"use strict";
// The settings in which chosen points differ.

const MOST_POINTS = 12; // beside each other

function drawSettings() {
  const all = chosenPoints();
  const some = all.slice(0, MOST_POINTS);
  const keys = [...new Set(some.flatMap((point) => Object.keys(point.settings)))];
  const differ = keys.filter((key) => new Set(some.map((point) => point.settings[key])).size > 1).sort();
  const cells = (key) => some.map((point) => make("td.wrap", {}, point.settings[key] ?? "–"));
  fill(
    document.getElementById("settings-table"),
    ["setting", ...some.map((point) => point.label)],
    differ.map((key) => [make("th", { scope: "row" }, key), ...cells(key)]),
  );
  const which = tickedPoints().length ? "ticked" : "shown";
  document.getElementById("settings-said").textContent =
    (all.length > some.length
      ? `The first ${some.length} of ${all.length} points that are ${which}; tick the ones to compare.`
      : `${count(some.length, "point")}: those that are ${which}.`) + (differ.length ? "" : " They do not differ.");
}

function drawShared() {
  const rows = Object.entries(report.shared)
    .sort()
    .map(([key, value]) => [make("th", { scope: "row" }, key), make("td.wrap", {}, value)]);
  fill(document.getElementById("shared-table"), ["setting", "value"], rows);
}
