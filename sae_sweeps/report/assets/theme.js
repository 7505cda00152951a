"use strict";
// The theme: as the system has it, unless the button says otherwise. Run before anything is painted.

const THEMES = ["as the system", "light", "dark"];
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
let theme = THEMES[0];
try {
  theme = localStorage.getItem("sae-sweeps-theme") ?? theme;
} catch {} // some browsers keep nothing for pages from disk

function applyTheme() {
  const dark = theme === "dark" || (theme === THEMES[0] && systemIsDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

applyTheme();
