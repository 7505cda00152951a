"use strict";
// Training curves on a common axis of tokens.

const MOST_CURVES = 40;
const CURVE_TITLES = {
  mse: "MSE (normalised)",
  loss: "loss",
  aux_loss: "auxiliary loss",
  l0: "L0 of the batch",
  dead_fraction: "dead latents",
  threshold_mean: "threshold, mean",
  lr: "learning rate",
};
const LOGARITHMIC = ["mse", "loss", "aux_loss"]; // unless the box says otherwise
const curveView = { metric: "mse", smoothing: 0, log: true };

// An exponential moving average that starts without a bias; what is not there stays so.
function smoothed(values, weight) {
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

let curves = null; // by point, when they have been unpacked

function curvePoints() {
  const nmse = (point) => point.metrics?.nmse ?? Infinity;
  return chosenPoints()
    .sort((a, b) => nmse(a) - nmse(b))
    .slice(0, MOST_CURVES);
}

function buildCurves() {
  const some = curvePoints();
  const traces = some.flatMap((point) => {
    const curve = curves?.[report.points.indexOf(point)];
    const values = curve?.[curveView.metric];
    if (!values) return [];
    const style = {
      color: hue(point.architecture),
      dash: DASHES[sizes.indexOf(point.dict_size) % DASHES.length],
      width: 1.6,
    };
    const line = { name: plain(point.label), x: curve.tokens, y: values, type: "scatter", mode: "lines", line: style };
    const hovertemplate = `<b>${plain(point.label)}</b><br>%{x:,} tokens<br>%{y:.4g}<extra></extra>`;
    if (!curveView.smoothing) return [{ ...line, hovertemplate }];
    const faint = { ...line, opacity: 0.25, showlegend: false, hoverinfo: "skip" };
    return [faint, { ...line, y: smoothed(values, curveView.smoothing), hovertemplate }];
  });
  const ticks = curveView.metric === "dead_fraction" ? { tickformat: ".0%" } : { exponentformat: "e" };
  const yaxis = { title: CURVE_TITLES[curveView.metric], type: curveView.log ? "log" : "linear", ...ticks };
  return { traces, layout: { showlegend: named(traces), xaxis: { title: "tokens" }, yaxis } };
}

function sayCurves() {
  const [drawn, all] = [curvePoints().length, chosenPoints().length];
  document.getElementById("curves-said").textContent =
    drawn < all
      ? `The ${drawn} of ${all} points with the lowest NMSE; filter or tick points for others.`
      : `${count(drawn, "point")}: ${tickedPoints().length ? "those that are ticked" : "all that are shown"}.`;
}

function addCurves() {
  const about =
    "What the batches of training showed, the MSE of normalised activations. Smoothing is an exponential moving average, which lags; what was measured stays faint.";
  const chart = addChart(document.getElementById("curve-charts"), "Training curves", about, buildCurves);
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
  const metric = labelled(
    "curve",
    choice(Object.entries(CURVE_TITLES), "mse", (name) => {
      curveView.log = log.checked = LOGARITHMIC.includes(name);
      change("metric")(name);
    }),
  );
  form.append(
    metric,
    labelled("smoothing", make("span", {}, smoothing, " ", weight)),
    labelled("logarithmic", log, true),
  );
  block("curves").then((found) => {
    curves = found;
    const there = new Set(found.flatMap((curve) => Object.keys(curve ?? {})));
    for (const option of metric.querySelectorAll("option")) if (!there.has(option.value)) option.remove();
    refresh([chart]);
  });
  return chart;
}
