"use strict";
// The sections on studies, one study at a time: stitching.js, meta_saes.js and meta_sizes.js show the chosen one.

const formatPercent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);
const formatNMSE = (value) => formatMetric("nmse", value);
const formatCount = (value) => value.toLocaleString("en-US");

const findLabel = (sweep, folder) =>
  report.points.find((point) => point.folder === folder && point.sweep === sweep)?.label ?? folder;

// The card set of an SAE or of a meta-SAE study, by the name of its folder; -1 if it has no cards.
const findCards = (sweep, folder) =>
  cardSets.findIndex(({ key, cards }) => [folder, `${sweep}/${folder}`].includes(key) && cards.length);

const STUDY_TABLES = {
  stitch: "All stitching studies",
  meta_sae: "All meta-SAE studies",
  meta_sizes: "All meta-SAE studies of several sizes",
};

// Fill the section of a task: a table of all studies, a choice of one, and what `show` adds for it. Returns a promise
// where the studies have to be decoded first.
// columns: [title, name of the metric, value -> text, explanation] of the table
function addStudySection(id, task, command, makeTitle, columns, show) {
  const body = document.getElementById(id);
  if (!report.studies[task]) {
    const commands = [make("code", {}, command), ", then ", make("code", {}, report.commands.report), "."];
    body.append(make("p.note", {}, "No finished studies. Run ", ...commands));
    return;
  }
  const chosen = { study: null }; // its name in the address, null for the first; `follow` shows it, once it is decoded
  const restore = (params) => {
    chosen.study = params.get(task);
    chosen.follow?.();
  };
  remember(() => (chosen.study == null ? [] : [[task, chosen.study]]), restore);
  return readBlock("studies").then((studies) => {
    const finished = studies[task];
    const titles = finished.map(makeTitle);
    if (finished.length > 1) {
      body.append(makeTableBox(STUDY_TABLES[task], makeStudyTable(finished, titles, columns)));
    }
    body.append(...chooseStudy(finished, titles, chosen, show));
  });
}

// A table of studies, with a row each.
function makeStudyTable(studies, titles, columns) {
  const activations = describeRange(studies.map((study) => study.metrics.activations));
  const measured = activations && `; on ${activations} held-out activations`;
  const heads = columns.map(([title, , , explained]) => makeExplained(title, explained + measured));
  const rows = studies.map((study, at) => [
    make("th", { scope: "row" }, titles[at]),
    ...columns.map(([, name, format]) => makeNumberCell(format(study.metrics[name]), study.metrics[name])),
  ]);
  return fillTable(make("table"), ["Study", ...heads], rows, 1);
}

const nameStudy = ({ sweep, key }) => (report.sweeps.length > 1 ? `${sweep}/${key}` : key);

// The choice of a study, or the title of the only one, and the content that `show` fills in for it.
function chooseStudy(studies, titles, chosen, show) {
  const content = make("div");
  let shown = null;
  const showStudy = (at) => {
    chosen.study = at ? nameStudy(studies[at]) : null;
    if (at === shown) return;
    shown = at;
    select.value = String(at);
    dropCharts(content);
    content.replaceChildren();
    show(content, studies[at]);
  };
  const options = titles.map((title, at) => [String(at), title]);
  const select = makeSelect(options, "0", (at) => {
    showStudy(Number(at));
    updateAddress();
  });
  chosen.follow = () =>
    showStudy(
      Math.max(
        0,
        studies.findIndex((study) => nameStudy(study) === chosen.study),
      ),
    );
  chosen.follow();
  return [
    studies.length > 1 ? make("div.controls", {}, makeLabelled("Study", select)) : make("p", {}, titles[0]),
    content,
  ];
}

// A list of a study's metrics with their titles, in the order of these, with buttons that copy and save it.
// titles: name -> title; a name that ends in "_" is of all metrics that begin so, and "#" in its title what follows it.
// excluded: names of metrics that are not listed
function listMetrics(study, titles, excluded = []) {
  const names = Object.keys(study.metrics);
  const titled = Object.entries(titles).flatMap(([name, title]) =>
    names
      .filter((found) => (name.endsWith("_") ? found.startsWith(name) : found === name))
      .map((found) => [title.replace("#", found.slice(name.length)), study.metrics[found], found]),
  );
  const others = names.filter((name) => !titled.some(([, , known]) => known === name));
  const listed = [...titled, ...others.map((name) => [name.replaceAll("_", " "), study.metrics[name], name])].filter(
    ([, , name]) => !excluded.includes(name),
  );
  const entries = listed.map(([title, value, name]) =>
    make(
      "div",
      {},
      make("dt", {}, title),
      make("dd", { "data-name": name, "data-value": value, title: value }, formatNumber(value)),
    ),
  );
  const listRows = () => [["Metric", "Value"], ...listed.map((row) => row.slice(0, 2))];
  const list = make("dl.numbers", { "data-study": study.key }, ...entries);
  return makeExported(`Metrics of ${study.key}`, listRows, list);
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
        "latents whose largest cosine with the small SAE is below the threshold",
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
  return Promise.all([stitching, metaSAEs, addSizes()]);
}
