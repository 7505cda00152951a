"use strict";
// The studies: stitching and meta-SAEs, a study at a time.

const STITCH_METRICS = {
  latents: "latents of the large SAE", latents_active: "of them, active at all", novel: "novel latents",
  novel_lowering_share: "novel latents that lower the error", reconstruction_lowering_share: "reconstruction latents that lower the error",
  auroc: "AUROC: the cosine predicts the sign", best_threshold: "best threshold of the cosine",
  nmse_small: "NMSE of the small SAE", nmse_lowest_on_the_way: "lowest NMSE on the way", nmse_novel_in: "NMSE with all novel latents in",
  nmse_reconstruction_in: "control: NMSE with all reconstruction latents in", nmse_all_in: "control: NMSE with all latents in", nmse_large: "NMSE of the large SAE",
  l0_small: "L0 of the small SAE", l0_novel_in: "L0 with all novel latents in", l0_large: "L0 of the large SAE",
  ce_small: "CE degradation of the small SAE, nats", ce_large: "CE degradation of the large SAE, nats",
  mse_small: "MSE of the small SAE", activations: "held-out activations",
};
const META_METRICS = {
  latents: "latents", decomposed: "directions decomposed", never_active: "left out: never active", meta_latents: "meta-latents",
  meta_latents_unused: "meta-latents that no latent uses", l0: "meta-latents of a latent, on average",
  explained_variance: "explained variance of the directions", explained_variance_shuffled: "the same of shuffled directions",
  explained_variance_pursuit: "by pursuit with the meta-SAE's decoder",
  nmse_before: "NMSE of the SAE", nmse_after: "NMSE with directions replaced",
  ce_degradation_before: "CE degradation of the SAE, nats", ce_degradation_after: "CE degradation with directions replaced, nats",
};

const labelOf = (sweep, folder) => report.points.find((point) => point.folder === folder && point.sweep === sweep)?.label ?? folder;

// A section for the studies of a task: which of them, its numbers, its charts.
function studySection(id, task, command, title, show) {
  const body = document.getElementById(id);
  if (!report.studies[task]) {
    body.append(make("p.note", {}, "Not run yet: ", make("code", {}, command), " and then ", make("code", {}, `python launch.py task=report name=${report.sweeps[0]}`), "."));
    return;
  }
  const inside = make("div");
  block("studies").then((studies) => {
    const found = studies[task];
    const pick = (at) => {
      dropCharts(inside);
      inside.replaceChildren();
      show(inside, found[at]);
    };
    const options = found.map((study, at) => [String(at), title(study)]);
    if (found.length > 1) body.append(make("div.controls", {}, labelled("study", choice(options, "0", pick))));
    else body.append(make("p", {}, options[0][1]));
    body.append(inside);
    pick(0);
  });
}

function numbersOf(study, titles) {
  const entries = Object.entries(study.metrics).map(([name, value]) => make("div", {},
    make("dt", {}, titles[name] ?? name.replaceAll("_", " ")),
    make("dd", { "data-name": name, "data-value": value, title: value }, brief(value))));
  return make("dl.numbers", { "data-study": study.key }, ...entries);
}

const lines = (name, x, y, tint, more = {}) => ({ name, x, y, type: "scatter", mode: "lines+markers", marker: { size: 5 }, line: { color: color(tint), width: 2 }, ...more });
const at = (x, tint, dash = "dash") => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: color(tint), width: 1.2, dash } });

function showStitching(inside, study) {
  const { curves, metrics: numbers, settings } = study;
  const [large, small] = [labelOf(study.sweep, study.large.point), labelOf(study.sweep, study.small.point)];
  inside.append(make("p", {}, `${numbers.novel.toLocaleString("en-US")} of the ${numbers.latents.toLocaleString("en-US")} latents of ${large} are novel beside ${small}, at a cosine of ${settings.threshold}.` +
    (numbers.auroc == null ? "" : ` The cosine predicts whether a latent lowers the error with AUROC ${numbers.auroc.toFixed(3)}; the best threshold is ${numbers.best_threshold.toFixed(2)}.`)));
  inside.append(numbersOf(study, STITCH_METRICS));
  const charts = make("div.charts");
  inside.append(charts);
  const way = curves.interpolation;
  const positions = way.nmse.map((_, position) => position);
  const parts = () => [{ type: "rect", yref: "paper", y0: 0, y1: 1, x0: 0, x1: curves.novel_in, fillcolor: color("batchtopk"), opacity: 0.1, line: { width: 0 } }];
  const wayChart = (title, about, y, x = positions) => addChart(charts, title, about, () => ({
    traces: [lines("interpolation", x, y, "batchtopk", { hovertemplate: "position %{x}<br>%{y:.5g}<extra></extra>" })],
    layout: { showlegend: false, shapes: parts(), xaxis: { title: "position: small SAE at the left, large SAE at the right" }, yaxis: { title, rangemode: "tozero" } } }));
  addChart(charts, "Change in error of each latent alone", "Against its largest decoder cosine with the small SAE.", () => {
    const { latent, cosine, change } = study.changes;
    const split = [["lowers the error", (value) => value < 0, "batchtopk"], ["raises it", (value) => value >= 0, "topk"]];
    const traces = split.map(([name, holds, tint]) => {
      const those = latent.map((_, i) => i).filter((i) => holds(change[i]));
      return { name, type: "scatter", mode: "markers", x: those.map((i) => cosine[i]), y: those.map((i) => Math.asinh(change[i] * 1e5)), customdata: those.map((i) => [latent[i], change[i]]),
        marker: { color: color(tint), size: 4, opacity: 0.5 }, hovertemplate: "latent %{customdata[0]}<br>cosine %{x:.3f}<br>change in MSE / MSE %{customdata[1]:.3g}<extra></extra>" };
    });
    const ticks = [-1e-2, -1e-3, -1e-4, -1e-5, 0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
    const shapes = [at(settings.threshold, "bad"), ...(numbers.best_threshold == null ? [] : [at(numbers.best_threshold, "plain", "dot")])];
    return { traces, layout: { shapes, xaxis: { title: "largest cosine with the small SAE" }, yaxis: { title: "change in MSE / MSE of the small SAE", tickvals: ticks.map((value) => Math.asinh(value * 1e5)), ticktext: ticks.map((value) => (value ? value.toExponential(0) : "0")) } } };
  });
  addChart(charts, "ROC: does the cosine predict the sign?", "Of the latents that are active at all.", () => ({
    traces: [lines("cosine", [0, ...study.roc.x], [0, ...study.roc.y], "batchtopk", { mode: "lines" }), { x: [0, 1], y: [0, 1], name: "chance", mode: "lines", type: "scatter", line: { color: color("plain"), dash: "dash", width: 1 }, hoverinfo: "skip" }],
    layout: { showlegend: false, xaxis: { title: "latents that raise the error, taken for novel", range: [0, 1] }, yaxis: { title: "latents that lower it, taken for novel", range: [0, 1.01] } } }));
  wayChart("NMSE on the way", "Novel latents are put in over the shaded part, then families are swapped.", way.nmse);
  wayChart("L0 on the way", "The same positions.", way.l0);
  wayChart("CE degradation on the way, nats", "The same positions.", curves.ce_degradation.nats, curves.ce_degradation.positions);
  addChart(charts, "Latents put in: novel ones and controls", "NMSE by how many latents of the large SAE are in.", () => {
    const base = curves.random.latents[0];
    const until = curves.novel_in + 1;
    const one = (name, curve, tint, end) => lines(name, curve.latents.slice(0, end).map((value) => value - base), curve.nmse.slice(0, end), tint);
    return { traces: [one("novel, lowest cosine first", way, "batchtopk", until), one("random order, all", curves.random, "plain"), one("reconstruction latents", curves.reconstruction, "topk")],
      layout: { xaxis: { title: "latents put in" }, yaxis: { title: "NMSE", rangemode: "tozero" } } };
  });
  addChart(charts, "Largest cosine of each latent", "Latents of the large SAE, with the small one.", () => histogramOf({ "": study.cosines }, "largest cosine with the small SAE", "latents", [at(settings.threshold, "bad")]));
  addChart(charts, "Families", `Connected components at a cosine of ${settings.threshold}.`, () => {
    const most = [...study.families].sort((a, b) => b.count - a.count).slice(0, 15);
    return { traces: [{ type: "bar", x: most.map((one) => `${one.small} : ${one.large}`), y: most.map((one) => one.count), marker: { color: color("batchtopk") }, name: "families" }],
      layout: { showlegend: false, xaxis: { title: "latents of the small SAE : of the large one", type: "category" }, yaxis: { title: "families", type: "log" } } };
  });
}

const TINTS = ["batchtopk", "topk", "jumprelu", "other", "plain"];

function histogramOf(named, x, y, shapes = []) {
  const traces = Object.entries(named).map(([name, bins], number) => ({
    name, type: "bar", x: bins.counts.map((_, bin) => bins.first + (bin + 0.5) * bins.width), y: bins.counts, width: bins.width,
    marker: { color: color(TINTS[number % TINTS.length]) }, opacity: Object.keys(named).length > 1 ? 0.6 : 1,
  }));
  return { traces, layout: { barmode: "overlay", bargap: 0, shapes, showlegend: traces.length > 1, xaxis: { title: x }, yaxis: { title: y } } };
}

function showMetaSAE(inside, study) {
  const { metrics: numbers, settings } = study;
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  inside.append(make("p", {}, `${numbers.meta_latents.toLocaleString("en-US")} meta-latents, ${settings.k} for each latent on average, explain ${percent(numbers.explained_variance)} of the decoder directions of ${labelOf(study.sweep, study.sae.point)}` +
    (numbers.explained_variance_shuffled == null ? "." : `; of shuffled directions ${percent(numbers.explained_variance_shuffled)}.`)));
  inside.append(numbersOf(study, META_METRICS));
  const charts = make("div.charts");
  inside.append(charts);
  addChart(charts, "Explained variance of the decoder directions", "The meta-SAE, smaller SAEs' decoders, and the control.", () => {
    const all = [["meta-SAE", numbers.explained_variance, "batchtopk"], ["its decoder,<br>pursuit", numbers.explained_variance_pursuit, "batchtopk"],
      ...study.smaller.map((one) => [`decoder of<br>${one.dict_size}, pursuit`, one.explained_variance, "topk"]), ["shuffled<br>directions", numbers.explained_variance_shuffled, "plain"]];
    const some = all.filter(([, value]) => value != null);
    return { traces: [{ type: "bar", name: "explained variance", x: some.map(([name]) => name), y: some.map(([, value]) => value), text: some.map(([, value]) => percent(value)), textposition: "outside", cliponaxis: false, marker: { color: some.map(([, , tint]) => color(tint)) } }],
      layout: { showlegend: false, margin: { l: 50, r: 12, t: 24, b: 40 }, yaxis: { title: "explained variance", tickformat: ".0%", range: [0, 1] } } };
  });
  addChart(charts, "Meta-latents of a latent", "How many latents use so many meta-latents.", () => ({
    traces: [{ type: "bar", name: "latents", x: study.per_latent.map((_, number) => number), y: study.per_latent, marker: { color: color("batchtopk") } }],
    layout: { showlegend: false, xaxis: { title: "meta-latents of a latent", dtick: 1 }, yaxis: { title: "latents" } } }));
  if (Object.keys(study.matches).length) {
    const named = Object.fromEntries(Object.entries(study.matches).map(([point, bins]) => [labelOf(study.sweep, point), bins]));
    addChart(charts, "Best matches among smaller SAEs", "The largest cosine of each meta-latent with a latent of a smaller SAE; dashed: the mean of random directions.",
      () => histogramOf(named, "largest cosine with a smaller SAE's latent", "meta-latents", study.smaller.map((one) => at(one.best_match_mean_of_random, "bad"))));
  }
}

function addStudies() {
  const name = report.sweeps[0];
  studySection("stitching-body", "stitch", `python launch.py task=stitch name=${name}`,
    (study) => `${labelOf(study.sweep, study.small.point)} with ${labelOf(study.sweep, study.large.point)}, threshold ${study.settings.threshold}`, showStitching);
  studySection("meta-body", "meta_sae", `python launch.py task=meta_sae name=${name}`,
    (study) => `${study.metrics.meta_latents} meta-latents of ${labelOf(study.sweep, study.sae.point)}, k ${study.settings.k}`, showMetaSAE);
}
