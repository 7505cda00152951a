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
  document.getElementById("theme").textContent = `theme: ${theme}`;
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
drawFilters();
drawDefinitions();
drawPoints();
const comparisonCharts = addComparison();
const curvesChart = addCurves();
drawCurvesStatus();
drawSettings();
drawSharedSettings();
addStudies();
addExplorer();
onThemeChange();
remember(listPointChoices, (params) => {
  restorePointChoices(params);
  drawFilters();
  onFilterChange();
});
if (splitAddress().query !== null) followAddress();
addEventListener("hashchange", followAddress);
