"use strict";
// The colour theme: the system's, unless the button chose another. Runs before the first paint.

const THEMES = ["system", "light", "dark"];
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
let theme = THEMES[0];
try {
  theme = localStorage.getItem("sae-sweeps-theme") ?? theme;
} catch {} // some browsers have no storage for files opened from disk

function applyTheme() {
  const dark = theme === "dark" || (theme === THEMES[0] && systemIsDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

applyTheme();
