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
const SMOOTHING = "Smoothing: exponential moving average, with the values themselves drawn faintly.";
const CURVE_AT_FIRST = { metric: "mse", smoothing: 0, log: true };
const curveView = { ...CURVE_AT_FIRST };

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
  const hasCurve = (point) => !curves || curves[report.points.indexOf(point)]?.[curveView.metric];
  const plotted = plottedPoints().filter(hasCurve);
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
  const ticks = curveView.metric === "dead_fraction" ? { tickformat: "~%" } : { exponentformat: "e" };
  const yaxis = { title: CURVE_TITLES[curveView.metric], type: curveView.log ? "log" : "linear", ...ticks };
  return { traces, layout: { xaxis: { title: "tokens" }, yaxis }, entries: plotted.map(lineEntry) };
}

function drawCurvesStatus() {
  const [drawn, all] = [plottedPoints().length, selectedOrShownPoints().length];
  document.getElementById("curves-status").textContent =
    drawn < all
      ? `The ${drawn} of ${all} points with the lowest NMSE; filter or select points to see others.`
      : describeChosen();
}

// The curves that some point has, or all while that is not known: [name, title].
function listCurves() {
  const recorded = new Set((curves ?? []).flatMap((curve) => Object.keys(curve ?? {})));
  return Object.entries(CURVE_TITLES).filter(([name]) => !curves || recorded.has(name));
}

// The controls of the curves, as they are now. `draw` shows what was chosen.
function drawCurveControls(draw) {
  const change = (changed) => {
    Object.assign(curveView, changed);
    draw();
  };
  const weight = make("output", {}, String(curveView.smoothing));
  const smoothing = make("input", {
    type: "range",
    min: 0,
    max: 0.9,
    step: 0.05,
    value: curveView.smoothing,
    oninput: (event) => {
      weight.textContent = event.target.value;
      change({ smoothing: Number(event.target.value) });
    },
  });
  const log = make("input", {
    type: "checkbox",
    checked: curveView.log,
    onchange: (event) => change({ log: event.target.checked }),
  });
  const metric = makeSelect(listCurves(), curveView.metric, (name) => {
    log.checked = LOGARITHMIC.includes(name);
    change({ metric: name, log: log.checked });
  });
  document
    .getElementById("curve-controls")
    .replaceChildren(
      makeLabelled("Curve", metric),
      makeLabelled("Smoothing", make("span", {}, smoothing, weight)),
      makeLabelled("Logarithmic", log, true),
    );
}

// What the address has of the curves.
function listCurveChoices() {
  const { metric, smoothing, log } = curveView;
  return [
    ...(metric === CURVE_AT_FIRST.metric ? [] : [["curve", metric]]),
    ...(smoothing ? [["smoothing", smoothing]] : []),
    ...(log === LOGARITHMIC.includes(metric) ? [] : [["scale", log ? "logarithmic" : "linear"]]),
  ];
}

function restoreCurveChoices(params) {
  const [metric] = listCurves().find(([name]) => name === params.get("curve")) ?? [CURVE_AT_FIRST.metric];
  const smoothing = Math.min(0.9, Math.max(0, Number(params.get("smoothing")) || 0));
  const scale = params.get("scale");
  Object.assign(curveView, { metric, smoothing, log: scale ? scale !== "linear" : LOGARITHMIC.includes(metric) });
}

function addCurves() {
  const caption = make("span");
  const chart = addChart(document.getElementById("curve-charts"), "Training curves", caption, buildCurves);
  document.getElementById("curve-controls").addEventListener("submit", (event) => event.preventDefault());
  const draw = () => {
    const title = CURVE_TITLES[curveView.metric];
    caption.textContent = `${title}: ${COLUMN_HELP[title]}. ${SMOOTHING}`;
    updateAddress();
    refresh([chart]);
  };
  const show = () => {
    drawCurveControls(draw);
    draw();
  };
  remember(listCurveChoices, (params) => {
    restoreCurveChoices(params);
    show();
  });
  show();
  readBlock("curves").then((decoded) => {
    curves = decoded;
    if (!listCurves().some(([name]) => name === curveView.metric)) Object.assign(curveView, CURVE_AT_FIRST);
    show();
  });
  return chart;
}
