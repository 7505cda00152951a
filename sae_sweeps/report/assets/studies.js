"use strict";
// The studies, a section for each task, a study at a time: stitching.js and meta_saes.js say what each shows.

const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);
const whole = (value) => value.toLocaleString("en-US");

const labelOf = (sweep, folder) =>
  report.points.find((point) => point.folder === folder && point.sweep === sweep)?.label ?? folder;

// A section for the studies of a task: which of them, its numbers, its charts.
function studySection(id, task, command, title, columns, show) {
  const body = document.getElementById(id);
  if (!report.studies[task]) {
    body.append(
      make(
        "p.note",
        {},
        "Not run yet: ",
        make("code", {}, command),
        " and then ",
        make("code", {}, `python launch.py task=report name=${report.sweeps[0]}`),
        ".",
      ),
    );
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
      const rows = found.map((study) => [
        make("th", { scope: "row" }, title(study)),
        ...columns.map(([, text]) => make("td.number", {}, text(study.metrics))),
      ]);
      const table = fill(make("table"), ["study", ...columns.map(([name]) => name)], rows, 1);
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
  const titled = (name) =>
    titles[name] ?? (smaller(name) ? `by pursuit with the decoder of ${smaller(name)}` : name.replaceAll("_", " "));
  const names = [
    ...Object.keys(titles).filter((name) => name in study.metrics),
    ...Object.keys(study.metrics).filter((name) => !(name in titles)),
  ];
  const entries = names
    .filter((name) => !but.includes(name))
    .map((name) =>
      make(
        "div",
        {},
        make("dt", {}, titled(name)),
        make(
          "dd",
          { "data-name": name, "data-value": study.metrics[name], title: study.metrics[name] },
          brief(study.metrics[name]),
        ),
      ),
    );
  return make("dl.numbers", { "data-study": study.key }, ...entries);
}

const lines = (name, x, y, tint, more = {}) => ({
  name,
  x,
  y,
  type: "scatter",
  mode: "lines+markers",
  marker: { size: 5 },
  line: { color: color(tint), width: 2 },
  ...more,
});

const TINTS = ["lower", "raise", "third", "other", "plain"];

function histogramOf(named, x, y, marks = []) {
  const traces = Object.entries(named).map(([name, bins], number) => ({
    name,
    type: "bar",
    x: bins.counts.map((_, bin) => bins.first + (bin + 0.5) * bins.width),
    y: bins.counts,
    width: bins.width,
    marker: { color: color(TINTS[number % TINTS.length]) },
    opacity: Object.keys(named).length > 1 ? 0.6 : 1,
  }));
  return {
    traces,
    layout: {
      barmode: "overlay",
      bargap: 0,
      ...marked(marks),
      showlegend: traces.length > 1,
      xaxis: { title: x },
      yaxis: { title: y },
    },
  };
}

function addStudies() {
  const name = report.sweeps[0];
  studySection(
    "stitching-body",
    "stitch",
    `python launch.py task=stitch name=${name}`,
    (study) =>
      `${labelOf(study.sweep, study.small.point)} with ${labelOf(study.sweep, study.large.point)}, threshold ${study.settings.threshold}${study.differs}`,
    [
      ["AUROC", (one) => brief(one.auroc)],
      ["best threshold", (one) => brief(one.best_threshold)],
      ["novel", (one) => brief(one.novel)],
      ["NMSE small", (one) => one.nmse_small.toFixed(4)],
      ["novel in", (one) => one.nmse_novel_in.toFixed(4)],
      ["large", (one) => one.nmse_large.toFixed(4)],
    ],
    showStitching,
  );
  studySection(
    "meta-body",
    "meta_sae",
    `python launch.py task=meta_sae name=${name}`,
    (study) =>
      `${study.metrics.meta_latents} meta-latents, k ${study.settings.k}, of ${labelOf(study.sweep, study.sae.point)}${study.differs}`,
    [
      ["explained", (one) => percent(one.explained_variance)],
      ["shuffled", (one) => percent(one.explained_variance_shuffled)],
      ["CE before", (one) => brief(one.ce_degradation_before)],
      ["CE after, nats", (one) => brief(one.ce_degradation_after)],
    ],
    showMetaSAE,
  );
}
