"use strict";
// Builds the page, and updates the sections that depend on the filters and the selection of points.

function onFilterChange() {
  drawPoints();
  refresh(comparisonCharts);
  onSelectionChange();
}

function onSelectionChange() {
  updateAddress();
  drawCurvesStatus();
  drawSettings();
  refresh([curvesChart]);
}

// Charts take their colours from the style sheet when they are drawn.
function onThemeChange() {
  applyTheme();
  document.getElementById("theme").textContent = `Theme: ${theme}`;
  refresh();
}

document.getElementById("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("sae-sweeps-theme", theme);
  } catch {} // without storage the theme lasts for this visit
  onThemeChange();
});
systemIsDark.addEventListener("change", onThemeChange);

addHelp();
addTableTools();
explainEvaluated();
// Paper is white: charts are drawn again with the colours of the light theme, also those that were not in view.
addEventListener("beforeprint", () => {
  isPrinting = true;
  document.documentElement.dataset.theme = "light";
  if (window.Plotly) for (const chart of charts) draw(chart);
});
addEventListener("afterprint", () => {
  isPrinting = false;
  onThemeChange();
});

// Say so if the address names no part of the page.
function checkAddress() {
  const name = readFragment();
  const isKnown = !name || document.getElementById(name) || parseLink(splitAddress().place);
  const note = document.getElementById("unknown");
  note.hidden = Boolean(isKnown);
  note.textContent = isKnown ? "" : `The address ends in #${name}, but this page has no such section or latent.`;
}

// The section that the address names.
function readFragment() {
  const { place } = splitAddress();
  try {
    return decodeURIComponent(place);
  } catch {
    return place;
  }
}

// Studies are decoded after the page has opened, above the section that the address may name: go there again, unless the
// reader has scrolled meanwhile.
function landAgain() {
  const section = document.getElementById(readFragment());
  if (section && !hasScrolled) section.scrollIntoView({ behavior: "instant" });
}

let hasScrolled = false;
for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"])
  addEventListener(kind, () => (hasScrolled = true), { once: true, passive: true });

drawFilters();
drawDefinitions();
drawPoints();
const comparisonCharts = addComparison();
addScaling();
const curvesChart = addCurves();
drawCurvesStatus();
drawSettings();
drawSharedSettings();
const whenStudied = addStudies();
addExplorer();
addDismissal();
addEventListener("hashchange", checkAddress);
checkAddress();
whenStudied.then(landAgain);
onThemeChange();
remember(listPointChoices, (params) => {
  restorePointChoices(params);
  drawFilters();
  onFilterChange();
});
if (splitAddress().query !== null) followAddress();
addEventListener("hashchange", followAddress);
