"use strict";
// The sections on studies, one study at a time: stitching.js and meta_saes.js show the study that is chosen.

const formatPercent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);
const formatNMSE = (value) => formatMetric("nmse", value);
const formatCount = (value) => value.toLocaleString("en-US");

const findLabel = (sweep, folder) =>
  report.points.find((point) => point.folder === folder && point.sweep === sweep)?.label ?? folder;

// Fill the section of a task: a table of all studies, a choice of one, and what `show` adds for it. Returns a promise
// where the studies have to be decoded first.
// columns: [title, name of the metric, value -> text, explanation] of the table
function addStudySection(id, task, command, makeTitle, columns, show) {
  const body = document.getElementById(id);
  if (!report.studies[task]) {
    body.append(
      make(
        "p.note",
        {},
        "No finished studies. Run ",
        make("code", {}, command),
        ", then ",
        make("code", {}, report.commands.report),
        ".",
      ),
    );
    return;
  }
  const content = make("div");
  return readBlock("studies").then((studies) => {
    const finished = studies[task];
    const showStudy = (at) => {
      dropCharts(content);
      content.replaceChildren();
      show(content, finished[at]);
    };
    const options = finished.map((study, at) => [String(at), makeTitle(study)]);
    if (finished.length > 1) {
      const activations = describeRange(finished.map((study) => study.metrics.activations));
      const measured = activations && `; on ${activations} held-out activations`;
      const titles = columns.map(([title, , , explained]) => makeExplained(title, explained + measured));
      const rows = finished.map((study) => [
        make("th", { scope: "row" }, makeTitle(study)),
        ...columns.map(([, name, format]) => makeNumberCell(format(study.metrics[name]), study.metrics[name])),
      ]);
      const table = fillTable(make("table"), ["Study", ...titles], rows, 1);
      body.append(makeTableBox(task === "stitch" ? "All stitching studies" : "All meta-SAE studies", table));
    }
    if (finished.length > 1)
      body.append(make("div.controls", {}, makeLabelled("Study", makeSelect(options, "0", showStudy))));
    else body.append(make("p", {}, options[0][1]));
    body.append(content);
    showStudy(0);
  });
}

// Titles of metrics that compare a meta-SAE with a smaller SAE of the sweep.
const SMALLER_TITLES = {
  explained_variance: (size) => `explained variance, matching pursuit with the decoder of ${size}`,
  explained_variance_nearest: (size) => `the same with the latents of ${size} that are nearest to a meta-latent`,
  near_of_sharing: (size) => `pairs of latents with a common meta-latent that are nearest to the same latent of ${size}`,
  sharing_of_near: (size) => `pairs of latents nearest to the same latent of ${size} that have a common meta-latent`,
};

// A list of a study's metrics with their titles, without those in `excluded`.
function listMetrics(study, titles, excluded = []) {
  const getTitle = (name) => {
    const [, about, size] = /^(.+)_smaller_(\d+)/.exec(name) ?? [];
    return titles[name] ?? SMALLER_TITLES[about]?.(size) ?? name.replaceAll("_", " ");
  };
  const names = [
    ...Object.keys(titles).filter((name) => name in study.metrics),
    ...Object.keys(study.metrics).filter((name) => !(name in titles)),
  ];
  const entries = names
    .filter((name) => !excluded.includes(name))
    .map((name) =>
      make(
        "div",
        {},
        make("dt", {}, getTitle(name)),
        make(
          "dd",
          { "data-name": name, "data-value": study.metrics[name], title: study.metrics[name] },
          formatNumber(study.metrics[name]),
        ),
      ),
    );
  return make("dl.numbers", { "data-study": study.key }, ...entries);
}

const lineTrace = (name, x, y, colorName, more = {}) => ({
  name,
  x,
  y,
  type: "scatter",
  mode: "lines+markers",
  marker: { size: 5 },
  line: { color: cssColor(colorName), width: 2 },
  colorName,
  ...more,
});

const HISTOGRAM_COLORS = ["lower", "raise", "third", "other", "plain"];

// Histograms by name, with labelled lines.
function plotHistograms(histograms, x, y, marks = []) {
  const traces = Object.entries(histograms).map(([name, bins], number) => ({
    name: escapePlotly(name),
    type: "bar",
    x: bins.counts.map((_, bin) => bins.first + (bin + 0.5) * bins.width),
    y: bins.counts,
    width: bins.width,
    marker: { color: cssColor(HISTOGRAM_COLORS[number % HISTOGRAM_COLORS.length]) },
    opacity: Object.keys(histograms).length > 1 ? 0.6 : 1,
    colorName: HISTOGRAM_COLORS[number % HISTOGRAM_COLORS.length],
  }));
  return {
    traces,
    layout: {
      barmode: "overlay",
      bargap: 0,
      ...layoutOfMarks(marks),
      xaxis: { title: x },
      yaxis: { title: y },
    },
  };
}

function addStudies() {
  const stitching = addStudySection(
    "stitching-body",
    "stitch",
    report.commands.stitch,
    (study) =>
      `${findLabel(study.sweep, study.small.point)} → ${findLabel(study.sweep, study.large.point)}, ` +
      `threshold ${study.settings.threshold}${study.differences}`,
    [
      ["AUROC", "auroc", formatNumber, "how well the cosine predicts the sign of the change in MSE; 0.5 is chance"],
      ["Best threshold", "best_threshold", formatNumber, "the cosine that separates the two signs best"],
      [
        "Novel latents",
        "novel",
        formatNumber,
        "latents whose largest cosine with the small SAE is at most the threshold",
      ],
      ["NMSE, small SAE", "nmse_small", formatNMSE, "NMSE of the small SAE alone"],
      ["NMSE, novel latents inserted", "nmse_novel_in", formatNMSE, "NMSE of the small SAE with all novel latents"],
      ["NMSE, large SAE", "nmse_large", formatNMSE, "NMSE of the large SAE alone"],
    ],
    showStitching,
  );
  const metaSAEs = addStudySection(
    "meta-body",
    "meta_sae",
    report.commands.meta_sae,
    (study) =>
      `${study.metrics.meta_latents} meta-latents, k ${study.settings.k}, of ` +
      `${findLabel(study.sweep, study.sae.point)}${study.differences}`,
    [
      ["Explained variance", "explained_variance", formatPercent, "share of the decoder directions' variance"],
      ["Explained variance, shuffled", "explained_variance_shuffled", formatPercent, "the same of shuffled directions"],
      ["CE degradation before, nats", "ce_degradation_before", formatNumber, "of the SAE with its own directions"],
      ["CE degradation after, nats", "ce_degradation_after", formatNumber, "of the SAE with reconstructed directions"],
    ],
    showMetaSAE,
  );
  return Promise.all([stitching, metaSAEs]);
}
