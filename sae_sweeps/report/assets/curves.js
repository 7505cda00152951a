"use strict";
// Training curves over tokens.

const MAX_CURVES = 40;
const CURVE_TITLES = {
  mse: "Training MSE",
  loss: "Training loss",
  aux_loss: "Auxiliary loss",
  l0: "L0 of the batch",
  dead_fraction: "Dead latents",
  threshold_mean: "Mean threshold",
  lr: "Learning rate",
};
const LOGARITHMIC = ["mse", "loss", "aux_loss"]; // by default
const curveView = { metric: "mse", smoothing: 0, log: true };

// Exponential moving average with bias correction; missing values stay missing.
function smooth(values, weight) {
  if (!weight) return values;
  let sum = 0,
    total = 0;
  return values.map((value) => {
    if (value == null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

let curves = null; // per point, once decoded

// As many points as a chart has lines for, those with the lowest NMSE.
function chooseLowest(points) {
  const nmse = (point) => point.metrics?.nmse ?? Infinity;
  return points.sort((a, b) => nmse(a) - nmse(b)).slice(0, MAX_CURVES);
}

const plottedPoints = () => chooseLowest(selectedOrShownPoints());

// What Plotly needs to know of a point's line, but for its coordinates, and its entry in the legend.
function makeLine(point) {
  const { color, dash } = styleOf(point);
  const line = { color: cssColor(color), dash: plotlyDash(dash), width: 1.6 };
  return { name: escapePlotly(point.label), type: "scatter", mode: "lines", line };
}

function lineEntry(point) {
  const { color, dash } = styleOf(point);
  return { name: point.label, short: point.short, style: { color, dash } };
}

function buildCurves(hidden) {
  const plotted = plottedPoints();
  const traces = plotted.flatMap((point) => {
    if (hidden.has(point.label)) return [];
    const curve = curves?.[report.points.indexOf(point)];
    const values = curve?.[curveView.metric];
    if (!values) return [];
    const line = { ...makeLine(point), x: curve.tokens, y: values };
    const hovertemplate = `<b>${escapePlotly(point.label)}</b><br>%{x:,} tokens<br>%{y:.4g}<extra></extra>`;
    if (!curveView.smoothing) return [{ ...line, hovertemplate }];
    const faint = { ...line, opacity: 0.25, hoverinfo: "skip" };
    return [faint, { ...line, y: smooth(values, curveView.smoothing), hovertemplate }];
  });
  const ticks = curveView.metric === "dead_fraction" ? { tickformat: ".0%" } : { exponentformat: "e" };
  const yaxis = { title: CURVE_TITLES[curveView.metric], type: curveView.log ? "log" : "linear", ...ticks };
  return { traces, layout: { xaxis: { title: "tokens" }, yaxis }, entries: plotted.map(lineEntry) };
}

function drawCurvesStatus() {
  const [drawn, all] = [plottedPoints().length, selectedOrShownPoints().length];
  document.getElementById("curves-status").textContent =
    drawn < all
      ? `The ${drawn} of ${all} points with the lowest NMSE; filter or select points to see others.`
      : `${pluralize(drawn, `${selectedPoints().length ? "selected" : "shown"} point`)}.`;
}

function addCurves() {
  const caption =
    "Training MSE per batch, of normalised activations; smoothing: exponential moving average, with the values themselves drawn faintly.";
  const chart = addChart(document.getElementById("curve-charts"), "Training curves", caption, buildCurves);
  const form = document.getElementById("curve-controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const change = (name) => (value) => {
    curveView[name] = value;
    refresh([chart]);
  };
  const weight = make("output", {}, "0");
  const smoothing = make("input", {
    type: "range",
    min: 0,
    max: 0.9,
    step: 0.05,
    value: 0,
    oninput: (event) => {
      weight.textContent = event.target.value;
      change("smoothing")(Number(event.target.value));
    },
  });
  const log = make("input", {
    type: "checkbox",
    checked: true,
    onchange: (event) => change("log")(event.target.checked),
  });
  const metric = makeLabelled(
    "Curve",
    makeSelect(Object.entries(CURVE_TITLES), "mse", (name) => {
      curveView.log = log.checked = LOGARITHMIC.includes(name);
      change("metric")(name);
    }),
  );
  form.append(
    metric,
    makeLabelled("Smoothing", make("span", {}, smoothing, " ", weight)),
    makeLabelled("Logarithmic", log, true),
  );
  readBlock("curves").then((decoded) => {
    curves = decoded;
    const recorded = new Set(decoded.flatMap((curve) => Object.keys(curve ?? {})));
    for (const option of metric.querySelectorAll("option")) if (!recorded.has(option.value)) option.remove();
    refresh([chart]);
  });
  return chart;
}
