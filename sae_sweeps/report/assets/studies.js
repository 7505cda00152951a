"use strict";
// The sections on studies, one study at a time: stitching.js and meta_saes.js show the study that is chosen.

const formatPercent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);
const formatCount = (value) => value.toLocaleString("en-US");

const findLabel = (sweep, folder) =>
  report.points.find((point) => point.folder === folder && point.sweep === sweep)?.label ?? folder;

// Fill the section of a task: a table of all studies, a choice of one, and what `show` adds for it. Returns a promise
// where the studies have to be decoded first.
// columns: [title, metrics -> text] of the table
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
      const rows = finished.map((study) => [
        make("th", { scope: "row" }, makeTitle(study)),
        ...columns.map(([, format]) => make("td.number", {}, format(study.metrics))),
      ]);
      const table = fillTable(make("table"), ["Study", ...columns.map(([columnTitle]) => columnTitle)], rows, 1);
      body.append(make("div.scroll", { role: "region", tabindex: 0, "aria-label": "All studies" }, table));
    }
    if (finished.length > 1)
      body.append(make("div.controls", {}, makeLabelled("Study", makeSelect(options, "0", showStudy))));
    else body.append(make("p", {}, options[0][1]));
    body.append(content);
    showStudy(0);
  });
}

// A list of a study's metrics with their titles, without those in `excluded`.
function listMetrics(study, titles, excluded = []) {
  const smallerSize = (name) => /^explained_variance_smaller_(\d+)/.exec(name)?.[1];
  const getTitle = (name) =>
    titles[name] ??
    (smallerSize(name)
      ? `explained variance, matching pursuit with the decoder of ${smallerSize(name)}`
      : name.replaceAll("_", " "));
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
      ["AUROC", (metrics) => formatNumber(metrics.auroc)],
      ["Best threshold", (metrics) => formatNumber(metrics.best_threshold)],
      ["Novel latents", (metrics) => formatNumber(metrics.novel)],
      ["NMSE, small SAE", (metrics) => formatMetric("nmse", metrics.nmse_small)],
      ["NMSE, novel latents inserted", (metrics) => formatMetric("nmse", metrics.nmse_novel_in)],
      ["NMSE, large SAE", (metrics) => formatMetric("nmse", metrics.nmse_large)],
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
      ["Explained variance", (metrics) => formatPercent(metrics.explained_variance)],
      ["Explained variance, shuffled", (metrics) => formatPercent(metrics.explained_variance_shuffled)],
      ["CE degradation before, nats", (metrics) => formatNumber(metrics.ce_degradation_before)],
      ["CE degradation after, nats", (metrics) => formatNumber(metrics.ce_degradation_after)],
    ],
    showMetaSAE,
  );
  return Promise.all([stitching, metaSAEs]);
}
