"use strict";
// Training curves on a common axis of tokens.

const MOST_CURVES = 40;
const CURVE_TITLES = { mse: "MSE", loss: "loss", aux_loss: "auxiliary loss", l0: "L0 of the batch", dead_fraction: "dead latents", threshold_mean: "threshold, mean", lr: "learning rate" };
const curveView = { metric: "mse", smoothing: 0, log: true };

// An exponential moving average that starts without a bias; what is not there stays so.
function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0, total = 0;
  return values.map((value) => {
    if (value == null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

let curves = null; // by point, when they have been unpacked

function curvePoints() {
  const nmse = (point) => point.metrics?.nmse ?? Infinity;
  return chosenPoints().sort((a, b) => nmse(a) - nmse(b)).slice(0, MOST_CURVES);
}

function buildCurves() {
  const some = curvePoints();
  const traces = some.flatMap((point) => {
    const curve = curves?.[report.points.indexOf(point)];
    const values = curve?.[curveView.metric];
    if (!values) return [];
    const style = { color: hue(point.architecture), dash: DASHES[sizes.indexOf(point.dict_size) % DASHES.length], width: 1.6 };
    return [{ name: point.label, x: curve.tokens, y: smoothed(values, curveView.smoothing), type: "scatter", mode: "lines", line: style,
      hovertemplate: `<b>${point.label}</b><br>%{x:,} tokens<br>%{y:.4g}<extra></extra>` }];
  });
  const yaxis = { title: CURVE_TITLES[curveView.metric], type: curveView.log ? "log" : "linear" };
  return { traces, layout: { showlegend: named(traces), xaxis: { title: "tokens" }, yaxis } };
}

function sayCurves() {
  const [drawn, all] = [curvePoints().length, chosenPoints().length];
  document.getElementById("curves-said").textContent = drawn < all
    ? `The ${drawn} of ${all} points with the lowest NMSE; filter or tick points for others.`
    : `${count(drawn, "point")}: ${view.chosen.size ? "those that are ticked" : "all that are shown"}.`;
}

function addCurves() {
  const chart = addChart(document.getElementById("curve-charts"), "Training curves", "What the batches of training showed.", buildCurves);
  const form = document.getElementById("curve-controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const change = (name) => (value) => {
    curveView[name] = value;
    refresh([chart]);
  };
  const smoothing = make("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: 0, oninput: (event) => change("smoothing")(Number(event.target.value)) });
  const log = make("input", { type: "checkbox", checked: true, onchange: (event) => change("log")(event.target.checked) });
  const metric = labelled("curve", choice(Object.entries(CURVE_TITLES), "mse", change("metric")));
  form.append(metric, labelled("smoothing", smoothing), labelled("logarithmic", log, true));
  block("curves").then((found) => {
    curves = found;
    const there = new Set(found.flatMap((curve) => Object.keys(curve ?? {})));
    for (const option of metric.querySelectorAll("option")) if (!there.has(option.value)) option.remove();
    refresh([chart]);
  });
  return chart;
}
