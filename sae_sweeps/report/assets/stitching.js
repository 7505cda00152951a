"use strict";
// The figures of a stitching study.

// What the table of ends leaves out, in the order in which it is listed.
const STITCH_METRICS = {
  activations: "held-out activations",
  without_spread: "held-out activations without spread, left out of the NMSE",
  latents: "latents of the large SAE",
  latents_active: "latents of the large SAE that are ever active",
  novel: "novel latents",
  novel_active: "novel latents that are ever active",
  novel_lowering_share: "share of active novel latents that lower the MSE when inserted alone",
  reconstruction_lowering_share: "share of active reconstruction latents that lower the MSE when inserted alone",
  auroc: "AUROC of the cosine as predictor of the sign of the change in MSE",
  best_threshold: "best cosine threshold",
  swaps: "families with latents on both sides, each swapped alone",
  swaps_active: "of these that are ever active",
  swaps_lowering_share: "of these that lower the MSE",
  mse_small: "MSE of the small SAE on raw activations",
  nmse_lowest_on_the_way: "lowest NMSE while novel latents are inserted",
};
// The rows of the table: title, and the names of its NMSE, L0 and CE degradation.
const STITCH_ROWS = [
  ["small SAE", "nmse_small", "l0_small", "ce_small"],
  ["with all novel latents inserted", "nmse_novel_in", "l0_novel_in"],
  ["control: with all reconstruction latents inserted", "nmse_reconstruction_in"],
  ["control: with all latents inserted", "nmse_all_in"],
  ["large SAE", "nmse_large", "l0_large", "ce_large"],
];

function makeEndsTable(study) {
  const rows = STITCH_ROWS.map(([title, ...names]) => [
    make("th", { scope: "row" }, title),
    ...[0, 1, 2].map((at) =>
      names[at]
        ? makeNumberCell(formatNumber(study.metrics[names[at]]), study.metrics[names[at]], names[at])
        : make("td.number", {}, ""),
    ),
  ]);
  const activations = describeRange([study.metrics.activations]);
  const measured = activations && `on ${activations} held-out activations`;
  const explain = (name) => makeExplained(metrics.get(name).title, explainMetric(metrics.get(name), measured));
  const ce = `CE degradation, nats, on ${formatCount(study.settings.ce_tokens)} activations`;
  const titles = ["SAE", explain("nmse"), explain("l0"), makeExplained(ce, metrics.get("ce_degradation").explained)];
  const table = fillTable(make("table", { "data-study": study.key }), titles, rows, 1);
  return makeTableBox("From the small SAE to the large one", table);
}

function showStitching(content, study) {
  content.append(make("p", {}, describeStitching(study)));
  content.append(
    makeEndsTable(study),
    listMetrics(
      study,
      STITCH_METRICS,
      STITCH_ROWS.flatMap(([, ...names]) => names),
    ),
  );
  if (study.swaps.length) content.append(...makeSwapsTable(study));
  const charts = make("div.charts");
  content.append(charts);
  addThresholds(charts, study);
  addChanges(charts, study);
  addROC(charts, study);
  addInterpolation(charts, study);
  addInsertion(charts, study);
  addCosines(charts, study);
  addFamilies(charts, study);
}

function describeStitching(study) {
  const { metrics, settings } = study;
  const [large, small] = [findLabel(study.sweep, study.large.point), findLabel(study.sweep, study.small.point)];
  const [before, after] = [formatMetric("nmse", metrics.nmse_small), formatMetric("nmse", metrics.nmse_novel_in)];
  const sentences = [];
  if (metrics.auroc != null)
    sentences.push(
      `Over the ${formatCount(metrics.latents_active)} latents of ${large} that are ever active, the largest cosine ` +
        `with ${small} predicts the sign of the change in MSE with AUROC ${metrics.auroc.toFixed(3)}; ` +
        `the best threshold is ${metrics.best_threshold.toFixed(2)}.`,
    );
  const active = metrics.novel_active == null ? "" : ` (${formatCount(metrics.novel_active)} ever active)`;
  sentences.push(
    `At the chosen threshold of ${settings.threshold}, ${formatCount(metrics.novel)} latents are novel${active}.`,
    `Inserting all of them changes the NMSE from ${before} to ${after}; ` +
      `the NMSE of the large SAE is ${formatMetric("nmse", metrics.nmse_large)}.`,
  );
  if (metrics.nmse_novel_in > metrics.nmse_small)
    sentences.push(
      "At this threshold, inserting all novel latents raises the error; " +
        `the lowest NMSE during insertion is ${formatMetric("nmse", metrics.nmse_lowest_on_the_way)}.`,
    );
  return sentences.join(" ");
}
