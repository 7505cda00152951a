"use strict";
// How points look and what they are called: the same colour, symbol, dash and short label in tables, legends and charts.
// `point.parts` has the parts of its label in which the points of the report differ: sweep, architecture, dict_size, k,
// settings, seed. `point.short` is made of them. Points with equal `point.contest` (k, model, hook, text) compete.

const PALETTE = [...Object.keys(ARCHITECTURE_NAMES), "other", "cyan", "raise", "plain", "lime", "lower"];
const DASHES = ["solid", "7,4", "2,3", "8,3,2,3", "14,4", "14,3,2,3", "2,8", "8,3,2,3,2,3"];
// Outlines in a square from -1 to 1, for swatches, by the names that Plotly has for them.
const SYMBOLS = {
  circle: "M1,0A1,1 0 1 1 -1,0A1,1 0 1 1 1,0Z",
  square: "M-.9,-.9H.9V.9H-.9Z",
  diamond: "M0,-1.2L1.2,0L0,1.2L-1.2,0Z",
  "triangle-up": "M0,-1.1L1.1,.9H-1.1Z",
  x: "M-1,-.5L-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0Z",
  "triangle-down": "M0,1.1L1.1,-.9H-1.1Z",
  star: "M0,-1.2L.35,-.4L1.2,-.35L.5,.2L.75,1.1L0,.6L-.75,1.1L-.5,.2L-1.2,-.35L-.35,-.4Z",
  cross: "M-.4,-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
};
const SYMBOL_NAMES = Object.keys(SYMBOLS);
const plotlyDash = (dash) => (dash === "solid" ? dash : dash.replace(/\d+/g, "$&px"));
const VARIANTS = Math.min(DASHES.length, SYMBOL_NAMES.length);

// What colours can show, most important first: each is added while there are colours enough for all combinations.
const COLORED = ["architecture", "settings", "sweep", "k", "dict_size"];

const knownColor = (architecture) => (architecture in ARCHITECTURE_NAMES ? architecture : "other");
const joinParts = (point, names) => names.map((name) => point.parts[name] ?? "").join("\n");

// A function from a point to the number of its combination of parts, counted from 0, with the number of combinations.
function numberCombinations(names) {
  const found = [...new Set(report.points.map((point) => joinParts(point, names)))];
  const numbers = new Map(found.map((combination, number) => [combination, number]));
  return [(point) => numbers.get(joinParts(point, names)), found.length];
}

// The style of a point: { color, symbol, dash }. Styles differ as long as there are colours and symbols enough. Points
// that differ in seed alone have the same colour, unless all points do.
const styleOf = (() => {
  const tryColors = (chosen, name) =>
    numberCombinations([...chosen, name])[1] <= PALETTE.length ? [...chosen, name] : chosen;
  const colored = report.groups.length === 1 ? ["seed"] : COLORED.reduce(tryColors, []);
  const [numberColor, colors] = numberCombinations(colored);
  const isByArchitecture = colors > 1 && colors === numberCombinations(["architecture"])[1];
  let getColor = (point) =>
    isByArchitecture ? knownColor(point.architecture) : PALETTE[numberColor(point) % PALETTE.length];
  let [getVariant, variants] = numberCombinations(COLORED.filter((name) => !colored.includes(name)));
  if (variants > VARIANTS) {
    // Symbols do not suffice for what has no colour of its own: each row takes the next colour.
    getColor = (point) => PALETTE[point.group % PALETTE.length];
    getVariant = (point) => Math.floor(point.group / PALETTE.length);
    variants = Math.ceil(report.groups.length / PALETTE.length);
  }
  const [getSeed] = numberCombinations(["seed"]);
  return (point) => {
    const variant = (getVariant(point) + variants * getSeed(point)) % VARIANTS;
    return { color: getColor(point), symbol: SYMBOL_NAMES[variant], dash: DASHES[variant] };
  };
})();

// The short label of a row; that of points that differ only in seed is without the seed.
function shortLabel(row) {
  const point = firstPoint(row);
  if (point.short === point.label || !view.grouped) return view.grouped ? row.label : point.short;
  const parts = Object.keys(point.parts).filter((name) => name !== "seed" && point.parts[name]);
  return parts.map((name) => point.parts[name]).join(", ") || row.label;
}
