"use strict";
// What is shown of a stitching study.

const STITCH_METRICS = {
  latents: "latents of the large SAE",
  latents_active: "of them, active at all",
  novel: "novel latents",
  novel_active: "of them, active at all",
  novel_lowering_share: "of active novel latents, the share that lowers the error",
  reconstruction_lowering_share: "of active reconstruction latents, the share that lowers the error",
  auroc: "AUROC: the cosine predicts the sign",
  best_threshold: "best threshold of the cosine",
  nmse_lowest_on_the_way: "lowest NMSE while novel latents come in",
  mse_small: "MSE of the small SAE, of raw activations",
  activations: "held-out activations",
};
// The ends and controls of the way from one SAE to the other: row, and where its NMSE, L0 and CE degradation are.
const STITCH_ROWS = [
  ["small SAE", "nmse_small", "l0_small", "ce_small"],
  ["with all novel latents put in", "nmse_novel_in", "l0_novel_in"],
  ["control: with all reconstruction latents", "nmse_reconstruction_in"],
  ["control: with all latents", "nmse_all_in"],
  ["large SAE", "nmse_large", "l0_large", "ce_large"],
];

function endsOf(study) {
  const rows = STITCH_ROWS.map(([title, ...names]) => [
    make("th", { scope: "row" }, title),
    ...[0, 1, 2].map((at) =>
      names[at]
        ? cell(brief(study.metrics[names[at]]), study.metrics[names[at]], names[at])
        : make("td.number", {}, ""),
    ),
  ]);
  const ce = `CE degradation, nats, on ${whole(study.settings.ce_tokens)} activations`;
  const table = fill(make("table", { "data-study": study.key }), ["", "NMSE", "L0", ce], rows, 1);
  return make(
    "div.scroll",
    { role: "region", tabindex: 0, "aria-label": "From the small SAE to the large one" },
    table,
  );
}

function showStitching(inside, study) {
  inside.append(make("p", {}, stitchingInWords(study)));
  inside.append(
    endsOf(study),
    numbersOf(
      study,
      STITCH_METRICS,
      STITCH_ROWS.flatMap(([, ...names]) => names),
    ),
  );
  const charts = make("div.charts");
  inside.append(charts);
  addThresholds(charts, study);
  addChanges(charts, study);
  addROC(charts, study);
  addWay(charts, study);
  addInsertion(charts, study);
  addCosines(charts, study);
  addFamilies(charts, study);
}

function stitchingInWords(study) {
  const { metrics: numbers, settings } = study;
  const [large, small] = [labelOf(study.sweep, study.large.point), labelOf(study.sweep, study.small.point)];
  const active = numbers.novel_active == null ? "" : `, ${whole(numbers.novel_active)} of them active at all`;
  const hurts = numbers.nmse_novel_in > numbers.nmse_small;
  return (
    `Of the ${whole(numbers.latents_active)} latents of ${large} that are active at all, the largest cosine with ${small} predicts the sign of their effect` +
    (numbers.auroc == null
      ? "."
      : ` with AUROC ${numbers.auroc.toFixed(3)}; the best threshold is ${numbers.best_threshold.toFixed(2)}.`) +
    ` At the chosen threshold, ${settings.threshold}, ${whole(numbers.novel)} latents are novel${active}; putting all of them in takes NMSE from ${numbers.nmse_small.toFixed(4)} to ${numbers.nmse_novel_in.toFixed(4)}` +
    ` (the large SAE has ${numbers.nmse_large.toFixed(4)})${hurts ? ": at this threshold they do harm, the lowest on the way is " + numbers.nmse_lowest_on_the_way.toFixed(4) : ""}.`
  );
}

// The threshold that was chosen and the best one, as marks on an axis of cosines.
function thresholdsOf({ metrics: numbers, settings }) {
  return marked([
    mark(settings.threshold, `threshold ${settings.threshold}`, "bad"),
    ...(numbers.best_threshold == null
      ? []
      : [mark(numbers.best_threshold, `best ${numbers.best_threshold.toFixed(2)}`, "plain", "dot")]),
  ]);
}

function addThresholds(charts, study) {
  const { metrics: numbers } = study;
  addChart(
    charts,
    "NMSE by threshold",
    "With all latents put in that a threshold calls novel.",
    () => {
      const x = study.thresholds.map((one) => one.threshold);
      const flat = (name, value, tint) => ({
        ...lines(name, [x[0], x.at(-1)], [value, value], tint, { mode: "lines" }),
        line: { color: color(tint), width: 1.5, dash: "dash" },
      });
      return {
        traces: [
          lines(
            "novel latents in",
            x,
            study.thresholds.map((one) => one.nmse_novel_in),
            "lower",
            {
              text: study.thresholds.map((one) => `${whole(one.novel)} novel`),
              hovertemplate: "threshold %{x}<br>NMSE %{y:.4f}<br>%{text}<extra></extra>",
            },
          ),
          flat("small SAE", numbers.nmse_small, "plain"),
          flat("large SAE", numbers.nmse_large, "raise"),
        ],
        layout: {
          ...thresholdsOf(study),
          xaxis: { title: "threshold of the cosine" },
          yaxis: { title: "NMSE", rangemode: "tozero" },
        },
      };
    },
    () => [
      Object.keys(study.thresholds[0]).map((name) => name.replaceAll("_", " ")),
      study.thresholds.map((one) => Object.values(one)),
    ],
  );
}

function addChanges(charts, study) {
  const { latent, cosine, change } = study.changes;
  const point = report.points.find((one) => one.folder === study.large.point && one.sweep === study.sweep);
  const number = shelves.findIndex((shelf) => shelf.key === point?.key && shelf.cards.length);
  addChart(
    charts,
    "Change in error of each latent alone",
    `Against its largest cosine with the small SAE; ${latent.length < study.changes.of ? `${whole(latent.length)} of ${whole(study.changes.of)}` : "all"} that are active at all.` +
      (number >= 0 ? " A click opens a latent's card." : ""),
    () => {
      const split = [
        ["lowers the error", (value) => value < 0, "lower"],
        ["raises it", (value) => value >= 0, "raise"],
      ];
      const traces = split.map(([name, holds, tint]) => {
        const those = latent.map((_, i) => i).filter((i) => holds(change[i]));
        return {
          name,
          type: "scatter",
          mode: "markers",
          x: those.map((i) => cosine[i]),
          y: those.map((i) => Math.asinh(change[i] * 1e5)),
          customdata: those.map((i) => [latent[i], change[i]]),
          links: number >= 0 ? those.map((i) => linkTo(number, latent[i])) : undefined,
          marker: { color: color(tint), size: 4, opacity: 0.6 },
          hovertemplate:
            "latent %{customdata[0]}<br>cosine %{x:.3f}<br>relative change in MSE %{customdata[1]:.3g}<extra></extra>",
        };
      });
      const ticks = [-1e-2, -1e-3, -1e-4, -1e-5, 0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
      return {
        traces,
        layout: {
          ...thresholdsOf(study),
          xaxis: { title: "largest cosine with the small SAE" },
          yaxis: {
            title: "relative change in MSE",
            tickvals: ticks.map((value) => Math.asinh(value * 1e5)),
            ticktext: ticks.map((value) => (value ? value.toExponential(0) : "0")),
          },
        },
      };
    },
    () => [
      ["latent", "largest cosine", "change in MSE / MSE of the small SAE"],
      latent.map((one, i) => [one, cosine[i], change[i]]).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])),
    ],
  );
}

function addROC(charts, study) {
  addChart(charts, "ROC: does the cosine predict the sign?", "Of the latents that are active at all.", () => ({
    traces: [
      lines("cosine", [0, ...study.roc.x], [0, ...study.roc.y], "lower", { mode: "lines" }),
      {
        x: [0, 1],
        y: [0, 1],
        name: "chance",
        mode: "lines",
        type: "scatter",
        line: { color: color("plain"), dash: "dash", width: 1 },
        hoverinfo: "skip",
      },
    ],
    layout: {
      showlegend: false,
      xaxis: { title: "latents that raise the error, taken for novel", range: [0, 1] },
      yaxis: { title: "latents that lower it, taken for novel", range: [0, 1.01] },
    },
  }));
}

// NMSE, L0 and CE degradation from the small SAE to the large one.
function addWay(charts, { curves, settings }) {
  const way = curves.interpolation;
  const positions = way.nmse.map((_, position) => position);
  const last = positions.length - 1;
  const phases = () => {
    const some = [band(0, curves.novel_in, "novel in", "lower")];
    if (last - 1 > curves.novel_in) some.push(band(curves.novel_in, last - 1, "families swapped", "raise"));
    return marked(some);
  };
  const wayAbout =
    "Novel latents are put in, lowest cosine first; then families are swapped; the last step takes out what is left of the small SAE.";
  const wayChart = (title, y, x = positions, about = "") =>
    addChart(charts, title, about, () => ({
      traces: [lines("interpolation", x, y, "lower", { hovertemplate: "position %{x}<br>%{y:.5g}<extra></extra>" })],
      layout: {
        showlegend: false,
        ...phases(),
        xaxis: { title: "position (small → large SAE)" },
        yaxis: { rangemode: "tozero" },
      },
    }));
  wayChart("NMSE on the way", way.nmse, positions, wayAbout);
  wayChart("L0 on the way", way.l0);
  wayChart(
    "CE degradation on the way, nats",
    curves.ce_degradation.nats,
    curves.ce_degradation.positions,
    `On ${whole(settings.ce_tokens)} activations.`,
  );
}

function addInsertion(charts, { curves }) {
  addChart(
    charts,
    "Latents put in: novel ones and controls",
    "NMSE by how many latents of the large SAE are in.",
    () => {
      const base = curves.random.latents[0];
      const until = curves.novel_in + 1;
      const one = (name, curve, tint, end) =>
        lines(
          name,
          curve.latents.slice(0, end).map((value) => value - base),
          curve.nmse.slice(0, end),
          tint,
        );
      return {
        traces: [
          one("novel, lowest cosine first", curves.interpolation, "lower", until),
          one("random order, all", curves.random, "plain"),
          one("reconstruction latents", curves.reconstruction, "raise"),
        ],
        layout: { xaxis: { title: "latents put in" }, yaxis: { title: "NMSE", rangemode: "tozero" } },
      };
    },
  );
}

function addCosines(charts, study) {
  addChart(charts, "Largest cosine of each latent", "Latents of the large SAE, with the small one.", () =>
    histogramOf({ "": study.cosines }, "largest cosine with the small SAE", "latents", [
      mark(study.settings.threshold, `threshold ${study.settings.threshold}`, "bad"),
    ]),
  );
}

function addFamilies(charts, study) {
  addChart(charts, "Families", `Connected components at a cosine of ${study.settings.threshold}.`, () => {
    const most = [...study.families].sort((a, b) => b.count - a.count).slice(0, 15);
    return {
      traces: [
        {
          type: "bar",
          x: most.map((one) => `${one.small} : ${one.large}`),
          y: most.map((one) => one.count),
          marker: { color: color("lower") },
          name: "families",
        },
      ],
      layout: {
        showlegend: false,
        xaxis: { title: "latents of the small SAE : of the large one", type: "category" },
        yaxis: { title: "families", type: "log" },
      },
    };
  });
}
