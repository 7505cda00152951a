"use strict";
// Charts of scaling laws, NMSE against dictionary size, a chart per law, a colour per k.

const METRIC_AT = { nmse_at_k: "NMSE at an L0 of k", nmse: "NMSE" };

// The band of a curve's interval.
const bandTrace = ({ dict_size, low, high }, colorName) => ({
  type: "scatter",
  mode: "lines",
  x: [...dict_size, ...dict_size.toReversed()],
  y: [...high, ...low.toReversed()],
  fill: "toself",
  fillcolor: cssColor(colorName),
  opacity: 0.15,
  line: { width: 0 },
  hoverinfo: "skip",
});

const sizesTrace = (name, points, colorName, symbol, more) => ({
  type: "scatter",
  mode: "markers",
  name,
  x: points.map((point) => point.dict_size),
  y: points.map((point) => point.nmse),
  marker: { color: cssColor(colorName), size: 9, symbol },
  hovertemplate: "%{x:,} latents: %{y:.4f}<extra></extra>",
  colorName,
  ...more,
});

// Predictions as open symbols, with their intervals.
const predictionsTrace = (name, predictions, colorName, symbol) =>
  sizesTrace(name, predictions, colorName, symbol, {
    y: predictions.map((one) => one.value),
    marker: { color: cssColor(colorName), size: 14, symbol: `${symbol}-open` }, // around the point itself
    error_y: {
      type: "data",
      symmetric: false,
      array: predictions.map((one) => one.high - one.value),
      arrayminus: predictions.map((one) => one.value - one.low),
      color: cssColor(colorName),
      thickness: 1.2,
    },
  });

// What a law has of one k and of its number of tokens.
function plotK(law, { k, curve }, place) {
  const isShown = (one) => one.k === k && one.tokens === law.tokens;
  const colorName = sizeColor(place);
  const [held, asked] = [law.held_out.filter(isShown), law.predictions.filter(isShown)];
  const measured = listMeasured(law).filter(isShown);
  const line = { ...lineTrace(`law, k ${k}`, curve.dict_size, curve.value, colorName), mode: "lines" };
  return [
    bandTrace(curve, colorName),
    { ...line, hovertemplate: "%{x:,.0f} latents: %{y:.4f}<extra></extra>" },
    sizesTrace(`measured, k ${k}`, measured, colorName, "circle"),
    ...(held.length ? [predictionsTrace(`largest size, predicted, k ${k}`, held, colorName, "diamond")] : []),
    ...(asked.length ? [predictionsTrace(`predicted, k ${k}`, asked, colorName, "square")] : []),
  ];
}

function addLaw(charts, law) {
  const what = METRIC_AT[law.metric];
  const caption =
    `Lines: laws fitted to the points, with bands of 95 %, after ${formatCount(law.tokens)} training tokens. ` +
    "Open symbols: predictions of points that were not used for them, with intervals of 95 %.";
  addChart(
    charts,
    `${what} of ${law.label} by dictionary size`,
    caption,
    (hidden) => ({
      traces: law.by_k.flatMap((one, place) =>
        hidden.has(`law, k ${one.k}`) ? plotK(law, one, place).slice(1) : plotK(law, one, place),
      ),
      layout: {
        xaxis: { title: "latents", type: "log", dtick: "D2", tickformat: ",d" },
        yaxis: { title: what, type: "log", exponentformat: "none" },
      },
    }),
    () => [
      ["k", "tokens", "latents", "kind", "NMSE", "from", "to"],
      [
        ...listMeasured(law).map((one) => [one.k, one.tokens, one.dict_size, "measured", one.nmse, null, null]),
        ...law.held_out.map((one) => listPrediction(one, "predicted from the others")),
        ...law.predictions.map((one) => listPrediction(one, "predicted")),
      ],
    ],
  );
}

// The points of a law, and those that it has predicted and that have been trained.
const listMeasured = (law) => [...law.points, ...law.predictions.filter((one) => one.nmse != null)];

const listPrediction = (one, kind) => [one.k, one.tokens, one.dict_size, kind, one.value, one.low, one.high];

function addScaling() {
  const body = document.getElementById("scaling-body");
  if (!report.scaling.length) {
    body.append(make("p.note", {}, "No scaling laws. Run ", make("code", {}, report.commands.scaling), "."));
    return;
  }
  const charts = make("div.charts");
  body.append(charts);
  for (const law of report.scaling) addLaw(charts, law);
}
