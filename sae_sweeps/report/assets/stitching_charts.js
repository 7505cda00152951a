"use strict";
// The charts of a stitching study.

// Lines at the chosen and the best threshold on an axis of cosines.
function layoutOfThresholds({ metrics, settings }) {
  return layoutOfMarks([
    verticalLine(settings.threshold, `threshold ${settings.threshold}`, "bad"),
    ...(metrics.best_threshold == null
      ? []
      : [verticalLine(metrics.best_threshold, `best ${metrics.best_threshold.toFixed(2)}`, "plain", "dot")]),
  ]);
}

const THRESHOLD_TITLES = {
  threshold: "cosine threshold",
  novel: "novel latents",
  nmse_novel_in: "NMSE with novel latents",
  l0_novel_in: "L0 with novel latents",
};

function addThresholds(charts, study) {
  const { metrics } = study;
  addChart(
    charts,
    "NMSE by threshold",
    "NMSE after inserting all latents that are novel at each threshold.",
    () => {
      const x = study.thresholds.map((row) => row.threshold);
      const flat = (name, value, colorName) => ({
        ...lineTrace(name, [x[0], x.at(-1)], [value, value], colorName, { mode: "lines" }),
        line: { color: cssColor(colorName), width: 1.5, dash: plotlyDash("7,4") },
      });
      return {
        traces: [
          lineTrace(
            "novel latents inserted",
            x,
            study.thresholds.map((row) => row.nmse_novel_in),
            "lower",
            {
              text: study.thresholds.map((row) => `${formatCount(row.novel)} novel latents`),
              hovertemplate: "threshold %{x}<br>NMSE %{y:.4f}<br>%{text}<extra></extra>",
            },
          ),
          flat("small SAE", metrics.nmse_small, "plain"),
          flat("large SAE", metrics.nmse_large, "raise"),
        ],
        layout: {
          ...layoutOfThresholds(study),
          xaxis: { title: "cosine threshold" },
          yaxis: { title: "NMSE", rangemode: "tozero" },
        },
      };
    },
    () => [
      Object.keys(study.thresholds[0]).map((name) => THRESHOLD_TITLES[name] ?? name.replaceAll("_", " ")),
      study.thresholds.map((row) => Object.values(row)),
    ],
  );
}

// Ticks of an axis of changes, which is linear near zero and logarithmic further away: more of them in a small range.
function chooseChangeTicks(changes) {
  const sizes = changes.filter(Boolean).map(Math.abs);
  const isSmallRange = Math.max(...sizes) < 30 * Math.min(...sizes);
  const steps = isSmallRange ? [1, 2, 5] : [1];
  const positive = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1].flatMap((size) =>
    steps.map((step) => Number((step * size).toPrecision(1))),
  );
  return [...positive.map((value) => -value), 0, ...positive];
}

function addChanges(charts, study) {
  const { latent, cosine, change } = study.changes;
  const cardSet = findCards(study.sweep, study.large.point);
  const { total } = study.changes;
  const sample =
    latent.length < total ? `a sample of ${formatCount(latent.length)} of the ${formatCount(total)}` : "all";
  addChart(
    charts,
    "Change in MSE per latent",
    "Relative change in the small SAE's MSE when a latent is inserted alone, against its largest cosine with the " +
      `small SAE; ${sample} latents that are ever active.` +
      (cardSet >= 0 ? " Click a latent to open its card." : ""),
    () => {
      const signs = [
        ["lowers the MSE", (value) => value != null && value < 0, "lower"],
        ["raises the MSE", (value) => value != null && value >= 0, "raise"],
      ];
      const traces = signs.map(([name, hasSign, colorName]) => {
        const members = latent.map((_, i) => i).filter((i) => hasSign(change[i]));
        return {
          name,
          type: "scatter",
          mode: "markers",
          x: members.map((i) => cosine[i]),
          y: members.map((i) => Math.asinh(change[i] * 1e5)),
          customdata: members.map((i) => [latent[i], change[i]]),
          links: cardSet >= 0 ? members.map((i) => linkTo(cardSet, latent[i])) : undefined,
          marker: { color: cssColor(colorName), size: 4, opacity: 0.6 },
          colorName,
          hovertemplate:
            "latent %{customdata[0]}<br>cosine %{x:.3f}<br>relative change in MSE %{customdata[1]:.3g}<extra></extra>",
        };
      });
      const ticks = chooseChangeTicks(change);
      return {
        traces,
        layout: {
          ...layoutOfThresholds(study),
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
      ["latent", "largest cosine", "relative change in MSE"],
      latent.map((number, i) => [number, cosine[i], change[i]]).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])),
    ],
  );
}

const ROC_RANGE = [-0.02, 1.02];

function addROC(charts, study) {
  addChart(
    charts,
    "ROC curve of the cosine",
    "Latents that are ever active; one is called novel if its largest cosine with the small SAE is below a threshold.",
    () => ({
      traces: [
        lineTrace("cosine", [0, ...study.roc.x], [0, ...study.roc.y], "lower", { mode: "lines" }),
        {
          x: [0, 1],
          y: [0, 1],
          name: "chance",
          mode: "lines",
          type: "scatter",
          line: { color: cssColor("plain"), dash: plotlyDash("7,4"), width: 1 },
          colorName: "plain",
          hoverinfo: "skip",
        },
      ],
      layout: {
        xaxis: { title: "False positive rate<br>(raise the error, called novel)", range: ROC_RANGE },
        yaxis: { title: "True positive rate<br>(lower the error, called novel)", range: ROC_RANGE },
      },
    }),
  );
}

// NMSE, L0 and CE degradation while the small SAE is turned into the large one.
function addInterpolation(charts, { curves, settings }) {
  const { interpolation } = curves;
  const positions = interpolation.nmse.map((_, position) => position);
  const last = positions.length - 1;
  const phases = () => {
    const bands = [verticalBand(0, curves.novel_in, "novel inserted", "lower")];
    if (last - 1 > curves.novel_in) bands.push(verticalBand(curves.novel_in, last - 1, "families swapped", "raise"));
    return layoutOfMarks(bands);
  };
  const phasesCaption =
    "First novel latents are inserted, lowest cosine first; then families are swapped; the last step removes the " +
    "remaining latents of the small SAE.";
  const add = (title, yTitle, y, x = positions, caption = "") =>
    addChart(charts, title, caption, () => ({
      traces: [
        lineTrace("interpolation", x, y, "lower", { hovertemplate: "position %{x}<br>%{y:.5g}<extra></extra>" }),
      ],
      layout: {
        ...phases(),
        xaxis: { title: "position (small → large SAE)" },
        yaxis: { title: yTitle, rangemode: "tozero" },
      },
    }));
  add("NMSE of the interpolation", "NMSE", interpolation.nmse, positions, phasesCaption);
  add("L0 of the interpolation", "L0", interpolation.l0);
  add(
    "CE degradation of the interpolation, nats",
    "CE degradation, nats",
    curves.ce_degradation.nats,
    curves.ce_degradation.positions,
    `On ${formatCount(settings.ce_tokens)} activations.`,
  );
}

function addInsertion(charts, { curves }) {
  addChart(
    charts,
    "Inserted latents: novel latents and controls",
    "NMSE by the number of inserted latents of the large SAE.",
    () => {
      const base = curves.random.latents[0];
      const end = curves.novel_in + 1;
      const trace = (name, curve, colorName, end) =>
        lineTrace(
          name,
          curve.latents.slice(0, end).map((value) => value - base),
          curve.nmse.slice(0, end),
          colorName,
        );
      return {
        traces: [
          trace("novel latents, lowest cosine first", curves.interpolation, "lower", end),
          trace("all latents, random order", curves.random, "plain"),
          trace("reconstruction latents", curves.reconstruction, "raise"),
        ],
        layout: { xaxis: { title: "inserted latents" }, yaxis: { title: "NMSE", rangemode: "tozero" } },
      };
    },
  );
}

function addCosines(charts, study) {
  addChart(
    charts,
    "Largest cosine per latent",
    "Cosine of each latent of the large SAE with its nearest latent of the small SAE.",
    () =>
      plotHistograms({ "": study.cosines }, "largest cosine with the small SAE", "latents", [
        verticalLine(study.settings.threshold, `threshold ${study.settings.threshold}`, "bad"),
      ]),
  );
}

function addFamilies(charts, study) {
  addChart(
    charts,
    "Families",
    `Connected components at a cosine threshold of ${study.settings.threshold}; the 15 most frequent sizes.`,
    () => {
      const frequent = [...study.families].sort((a, b) => b.count - a.count).slice(0, 15);
      return {
        traces: [
          {
            type: "bar",
            x: frequent.map((family) => escapePlotly(`${family.small} : ${family.large}`)),
            y: frequent.map((family) => family.count),
            marker: { color: cssColor("lower") },
            name: "families",
          },
        ],
        layout: {
          xaxis: { title: "latents of the small : large SAE", type: "category" },
          yaxis: { title: "families", type: "log", dtick: 1 },
        },
      };
    },
  );
}
