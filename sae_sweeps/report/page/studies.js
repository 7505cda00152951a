"use strict";
// The studies: stitching and meta-SAEs, a study at a time.

const STITCH_METRICS = {
  latents: "latents of the large SAE", latents_active: "of them, active at all", novel: "novel latents", novel_active: "of them, active at all",
  novel_lowering_share: "of active novel latents, the share that lowers the error",
  reconstruction_lowering_share: "of active reconstruction latents, the share that lowers the error",
  auroc: "AUROC: the cosine predicts the sign", best_threshold: "best threshold of the cosine",
  nmse_lowest_on_the_way: "lowest NMSE while novel latents come in", mse_small: "MSE of the small SAE, of raw activations", activations: "held-out activations",
};
// The ends and controls of the way from one SAE to the other: row, and where its NMSE, L0 and CE degradation are.
const STITCH_ROWS = [
  ["small SAE", "nmse_small", "l0_small", "ce_small"], ["with all novel latents put in", "nmse_novel_in", "l0_novel_in"],
  ["control: with all reconstruction latents", "nmse_reconstruction_in"], ["control: with all latents", "nmse_all_in"], ["large SAE", "nmse_large", "l0_large", "ce_large"],
];
const META_METRICS = {
  latents: "latents", decomposed: "directions decomposed", never_active: "left out: never active in the text read", meta_latents: "meta-latents",
  meta_latents_unused: "meta-latents that no latent uses", l0: "meta-latents of a latent, on average",
  explained_variance: "explained variance of the directions", explained_variance_shuffled: "the same of shuffled directions",
  explained_variance_pursuit: "by pursuit with the meta-SAE's decoder",
  nmse_before: "NMSE of the SAE", nmse_after: "NMSE with directions replaced",
  ce_degradation_before: "CE degradation of the SAE, nats", ce_degradation_after: "CE degradation with directions replaced, nats",
};
const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);
const whole = (value) => value.toLocaleString("en-US");

const labelOf = (sweep, folder) => report.points.find((point) => point.folder === folder && point.sweep === sweep)?.label ?? folder;

// A section for the studies of a task: which of them, its numbers, its charts.
function studySection(id, task, command, title, columns, show) {
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
    if (found.length > 1) {
      const rows = found.map((study) => [make("th", { scope: "row" }, title(study)), ...columns.map(([, text]) => make("td.number", {}, text(study.metrics)))]);
      const table = fill(make("table"), ["study", ...columns.map(([name]) => name)], rows);
      for (const head of [...table.tHead.rows[0].cells].slice(1)) head.className = "number";
      body.append(make("div.scroll", { role: "region", tabindex: 0, "aria-label": "All studies" }, table));
    }
    if (found.length > 1) body.append(make("div.controls", {}, labelled("study", choice(options, "0", pick))));
    else body.append(make("p", {}, options[0][1]));
    body.append(inside);
    pick(0);
  });
}

// The numbers of a study but for some, each with its title.
function numbersOf(study, titles, but = []) {
  const smaller = (name) => /^explained_variance_smaller_(\d+)/.exec(name)?.[1];
  const titled = (name) => titles[name] ?? (smaller(name) ? `by pursuit with the decoder of ${smaller(name)}` : name.replaceAll("_", " "));
  const names = [...Object.keys(titles).filter((name) => name in study.metrics), ...Object.keys(study.metrics).filter((name) => !(name in titles))];
  const entries = names.filter((name) => !but.includes(name)).map((name) => make("div", {},
    make("dt", {}, titled(name)), make("dd", { "data-name": name, "data-value": study.metrics[name], title: study.metrics[name] }, brief(study.metrics[name]))));
  return make("dl.numbers", { "data-study": study.key }, ...entries);
}

function endsOf(study) {
  const rows = STITCH_ROWS.map(([title, ...names]) => [make("th", { scope: "row" }, title),
    ...[0, 1, 2].map((at) => (names[at] ? cell(brief(study.metrics[names[at]]), study.metrics[names[at]], names[at]) : make("td.number", {}, "")))]);
  const ce = `CE degradation, nats, on ${whole(study.settings.ce_tokens)} activations`;
  const table = fill(make("table", { "data-study": study.key }), ["", "NMSE", "L0", ce], rows);
  for (const head of [...table.tHead.rows[0].cells].slice(1)) head.className = "number";
  return make("div.scroll", { role: "region", tabindex: 0, "aria-label": "From the small SAE to the large one" }, table);
}

const lines = (name, x, y, tint, more = {}) => ({ name, x, y, type: "scatter", mode: "lines+markers", marker: { size: 5 }, line: { color: color(tint), width: 2 }, ...more });
function showStitching(inside, study) {
  const { curves, metrics: numbers, settings } = study;
  const [large, small] = [labelOf(study.sweep, study.large.point), labelOf(study.sweep, study.small.point)];
  const active = numbers.novel_active == null ? "" : `, ${whole(numbers.novel_active)} of them active at all`;
  const hurts = numbers.nmse_novel_in > numbers.nmse_small;
  inside.append(make("p", {}, `Of the ${whole(numbers.latents_active)} latents of ${large} that are active at all, the largest cosine with ${small} predicts the sign of their effect` +
    (numbers.auroc == null ? "." : ` with AUROC ${numbers.auroc.toFixed(3)}; the best threshold is ${numbers.best_threshold.toFixed(2)}.`) +
    ` At the chosen threshold, ${settings.threshold}, ${whole(numbers.novel)} latents are novel${active}; putting all of them in takes NMSE from ${numbers.nmse_small.toFixed(4)} to ${numbers.nmse_novel_in.toFixed(4)}` +
    ` (the large SAE has ${numbers.nmse_large.toFixed(4)})${hurts ? ": at this threshold they do harm, the lowest on the way is " + numbers.nmse_lowest_on_the_way.toFixed(4) : ""}.`));
  const ends = STITCH_ROWS.flatMap(([, ...names]) => names);
  inside.append(endsOf(study), numbersOf(study, STITCH_METRICS, ends));
  const charts = make("div.charts");
  inside.append(charts);
  const way = curves.interpolation;
  const positions = way.nmse.map((_, position) => position);
  const last = positions.length - 1;
  const phases = () => {
    const phase = (x0, x1, tint, text) => ({
      shape: { type: "rect", yref: "paper", y0: 0, y1: 1, x0, x1, fillcolor: color(tint), opacity: 0.1, line: { width: 0 } },
      annotation: { x: (x0 + x1) / 2, y: 1, yref: "paper", yanchor: "bottom", text, showarrow: false, font: { size: 11, color: color("soft") } },
    });
    const some = [phase(0, curves.novel_in, "lower", "novel in")];
    if (last - 1 > curves.novel_in) some.push(phase(curves.novel_in, last - 1, "raise", "families swapped"));
    return marked(some);
  };
  const wayAbout = "Novel latents are put in, lowest cosine first; then families are swapped; the last step takes out what is left of the small SAE.";
  const wayChart = (title, y, x = positions, about = "") => addChart(charts, title, about, () => ({
    traces: [lines("interpolation", x, y, "lower", { hovertemplate: "position %{x}<br>%{y:.5g}<extra></extra>" })],
    layout: { showlegend: false, ...phases(), xaxis: { title: "position (small → large SAE)" }, yaxis: { rangemode: "tozero" } } }));
  const thresholds = () => marked([mark(settings.threshold, `threshold ${settings.threshold}`, "bad"), ...(numbers.best_threshold == null ? [] : [mark(numbers.best_threshold, `best ${numbers.best_threshold.toFixed(2)}`, "plain", "dot")])]);
  addChart(charts, "NMSE by threshold", "With all latents put in that a threshold calls novel.", () => {
    const x = study.thresholds.map((one) => one.threshold);
    const flat = (name, value, tint) => ({ ...lines(name, [x[0], x.at(-1)], [value, value], tint, { mode: "lines" }), line: { color: color(tint), width: 1.5, dash: "dash" } });
    return { traces: [lines("novel latents in", x, study.thresholds.map((one) => one.nmse_novel_in), "lower", { text: study.thresholds.map((one) => `${whole(one.novel)} novel`), hovertemplate: "threshold %{x}<br>NMSE %{y:.4f}<br>%{text}<extra></extra>" }),
      flat("small SAE", numbers.nmse_small, "plain"), flat("large SAE", numbers.nmse_large, "raise")],
    layout: { ...thresholds(), xaxis: { title: "threshold of the cosine" }, yaxis: { title: "NMSE", rangemode: "tozero" } } };
  }, () => [Object.keys(study.thresholds[0]).map((name) => name.replaceAll("_", " ")), study.thresholds.map((one) => Object.values(one))]);
  const { latent, cosine, change } = study.changes;
  const number = shelves.findIndex((shelf) => shelf.key.endsWith(study.large.point) && shelf.of == null && shelf.cards.length);
  addChart(charts, "Change in error of each latent alone", `Against its largest cosine with the small SAE; ${latent.length < study.changes.of ? `${whole(latent.length)} of ${whole(study.changes.of)}` : "all"} that are active at all.` + (number >= 0 ? " A click opens a latent's card." : ""), () => {
    const split = [["lowers the error", (value) => value < 0, "lower"], ["raises it", (value) => value >= 0, "raise"]];
    const traces = split.map(([name, holds, tint]) => {
      const those = latent.map((_, i) => i).filter((i) => holds(change[i]));
      return { name, type: "scatter", mode: "markers", x: those.map((i) => cosine[i]), y: those.map((i) => Math.asinh(change[i] * 1e5)), customdata: those.map((i) => [latent[i], change[i]]),
        links: number >= 0 ? those.map((i) => linkTo(number, latent[i])) : undefined, marker: { color: color(tint), size: 4, opacity: 0.6 },
        hovertemplate: "latent %{customdata[0]}<br>cosine %{x:.3f}<br>relative change in MSE %{customdata[1]:.3g}<extra></extra>" };
    });
    const ticks = [-1e-2, -1e-3, -1e-4, -1e-5, 0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
    return { traces, layout: { ...thresholds(), xaxis: { title: "largest cosine with the small SAE" }, yaxis: { title: "relative change in MSE", tickvals: ticks.map((value) => Math.asinh(value * 1e5)), ticktext: ticks.map((value) => (value ? value.toExponential(0) : "0")) } } };
  }, () => [["latent", "largest cosine", "change in MSE / MSE of the small SAE"], latent.map((one, i) => [one, cosine[i], change[i]]).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]))]);
  addChart(charts, "ROC: does the cosine predict the sign?", "Of the latents that are active at all.", () => ({
    traces: [lines("cosine", [0, ...study.roc.x], [0, ...study.roc.y], "lower", { mode: "lines" }), { x: [0, 1], y: [0, 1], name: "chance", mode: "lines", type: "scatter", line: { color: color("plain"), dash: "dash", width: 1 }, hoverinfo: "skip" }],
    layout: { showlegend: false, xaxis: { title: "latents that raise the error, taken for novel", range: [0, 1] }, yaxis: { title: "latents that lower it, taken for novel", range: [0, 1.01] } } }));
  wayChart("NMSE on the way", way.nmse, positions, wayAbout);
  wayChart("L0 on the way", way.l0);
  wayChart("CE degradation on the way, nats", curves.ce_degradation.nats, curves.ce_degradation.positions, `On ${whole(settings.ce_tokens)} activations.`);
  addChart(charts, "Latents put in: novel ones and controls", "NMSE by how many latents of the large SAE are in.", () => {
    const base = curves.random.latents[0];
    const until = curves.novel_in + 1;
    const one = (name, curve, tint, end) => lines(name, curve.latents.slice(0, end).map((value) => value - base), curve.nmse.slice(0, end), tint);
    return { traces: [one("novel, lowest cosine first", way, "lower", until), one("random order, all", curves.random, "plain"), one("reconstruction latents", curves.reconstruction, "raise")],
      layout: { xaxis: { title: "latents put in" }, yaxis: { title: "NMSE", rangemode: "tozero" } } };
  });
  addChart(charts, "Largest cosine of each latent", "Latents of the large SAE, with the small one.", () => histogramOf({ "": study.cosines }, "largest cosine with the small SAE", "latents", [mark(settings.threshold, `threshold ${settings.threshold}`, "bad")]));
  addChart(charts, "Families", `Connected components at a cosine of ${settings.threshold}.`, () => {
    const most = [...study.families].sort((a, b) => b.count - a.count).slice(0, 15);
    return { traces: [{ type: "bar", x: most.map((one) => `${one.small} : ${one.large}`), y: most.map((one) => one.count), marker: { color: color("lower") }, name: "families" }],
      layout: { showlegend: false, xaxis: { title: "latents of the small SAE : of the large one", type: "category" }, yaxis: { title: "families", type: "log" } } };
  });
}

const TINTS = ["lower", "raise", "jumprelu", "other", "plain"];

function histogramOf(named, x, y, marks = []) {
  const traces = Object.entries(named).map(([name, bins], number) => ({
    name, type: "bar", x: bins.counts.map((_, bin) => bins.first + (bin + 0.5) * bins.width), y: bins.counts, width: bins.width,
    marker: { color: color(TINTS[number % TINTS.length]) }, opacity: Object.keys(named).length > 1 ? 0.6 : 1,
  }));
  return { traces, layout: { barmode: "overlay", bargap: 0, ...marked(marks), showlegend: traces.length > 1, xaxis: { title: x }, yaxis: { title: y } } };
}

function showMetaSAE(inside, study) {
  const { metrics: numbers, settings } = study;
  const [here, shuffled] = [numbers.explained_variance, numbers.explained_variance_shuffled];
  inside.append(make("p", {}, `${whole(numbers.meta_latents)} meta-latents, ${settings.k} for each latent on average, explain ${percent(here)} of the decoder directions of ${labelOf(study.sweep, study.sae.point)}` +
    (shuffled == null ? "" : `, ${(100 * (here - shuffled)).toFixed(1)} points ${here < shuffled ? "less" : "more"} than of shuffled directions (${percent(shuffled)})`) +
    (numbers.ce_degradation_after == null ? "." : `; with its directions replaced, the CE degradation goes from ${numbers.ce_degradation_before.toFixed(3)} to ${numbers.ce_degradation_after.toFixed(3)} nats.`)));
  inside.append(numbersOf(study, META_METRICS));
  const charts = make("div.charts");
  inside.append(charts);
  addChart(charts, "Explained variance of the decoder directions", "The meta-SAE, smaller SAEs' decoders, and the control.", () => {
    const all = [["meta-SAE", numbers.explained_variance, "lower"], ["shuffled<br>directions", numbers.explained_variance_shuffled, "plain"],
      ["its decoder,<br>pursuit", numbers.explained_variance_pursuit, "lower"], ...study.smaller.map((one) => [`decoder of<br>${one.dict_size}, pursuit`, one.explained_variance, "raise"])];
    const some = all.filter(([, value]) => value != null);
    return { traces: [{ type: "bar", name: "explained variance", x: some.map(([name]) => name), y: some.map(([, value]) => value), text: some.map(([, value]) => percent(value)), textposition: "outside", cliponaxis: false, marker: { color: some.map(([, , tint]) => color(tint)) } }],
      layout: { showlegend: false, margin: { l: 50, r: 12, t: 24, b: 40 }, yaxis: { title: "explained variance", tickformat: ".0%", range: [0, 1] } } };
  });
  addChart(charts, "Meta-latents of a latent", "How many latents use so many meta-latents.", () => ({
    traces: [{ type: "bar", name: "latents", x: study.per_latent.map((_, number) => number), y: study.per_latent, marker: { color: color("lower") } }],
    layout: { showlegend: false, xaxis: { title: "meta-latents of a latent", dtick: 1 }, yaxis: { title: "latents" } } }));
  if (Object.keys(study.matches).length) {
    const named = Object.fromEntries(Object.entries(study.matches).map(([point, bins]) => [labelOf(study.sweep, point), bins]));
    addChart(charts, "Best matches among smaller SAEs", "The largest cosine of each meta-latent with a latent of a smaller SAE; dashed: the mean of random directions.",
      () => histogramOf(named, "largest cosine with a smaller SAE's latent", "meta-latents", study.smaller.map((one) => mark(one.best_match_mean_of_random, "random", "bad"))));
  }
}

function addStudies() {
  const name = report.sweeps[0];
  studySection("stitching-body", "stitch", `python launch.py task=stitch name=${name}`,
    (study) => `${labelOf(study.sweep, study.small.point)} with ${labelOf(study.sweep, study.large.point)}, threshold ${study.settings.threshold}`,
    [["AUROC", (one) => brief(one.auroc)], ["best threshold", (one) => brief(one.best_threshold)], ["novel", (one) => brief(one.novel)], ["NMSE small", (one) => one.nmse_small.toFixed(4)], ["novel in", (one) => one.nmse_novel_in.toFixed(4)], ["large", (one) => one.nmse_large.toFixed(4)]],
    showStitching);
  studySection("meta-body", "meta_sae", `python launch.py task=meta_sae name=${name}`,
    (study) => `${study.metrics.meta_latents} meta-latents, k ${study.settings.k}, of ${labelOf(study.sweep, study.sae.point)}`,
    [["explained", (one) => percent(one.explained_variance)], ["shuffled", (one) => percent(one.explained_variance_shuffled)], ["CE before", (one) => brief(one.ce_degradation_before)], ["CE after, nats", (one) => brief(one.ce_degradation_after)]],
    showMetaSAE);
}
