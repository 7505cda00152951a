"use strict";
// The page is put together; what is changed in one place is followed in the others.

function changed(what) {
  if (what === "filter") {
    drawPoints();
    refresh(comparison);
  }
  sayCurves();
  drawSettings();
  refresh([curveChart]);
}

// The colours of charts are not the style sheet's to change.
function themeChanged() {
  applyTheme();
  document.getElementById("theme").textContent = `theme: ${theme}`;
  refresh();
}

document.getElementById("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("sae-sweeps-theme", theme);
  } catch {} // then it holds for this visit
  themeChanged();
});
systemIsDark.addEventListener("change", themeChanged);

drawFilters();
drawPoints();
const comparison = addComparison();
const curveChart = addCurves();
sayCurves();
drawSettings();
drawShared();
addStudies();
addExplorer();
themeChanged();
