"use strict";
// The figures of a meta-SAE study.

const META_METRICS = {
  latents: "latents",
  activations: "held-out activations read for examples",
  decomposed: "decoder directions decomposed",
  never_active: "latents left out: never active on these activations",
  meta_latents: "meta-latents",
  meta_latents_unused: "meta-latents used by no latent",
  l0: "meta-latents per latent, mean",
  explained_variance: "explained variance of the decoder directions",
  explained_variance_shuffled: "explained variance of shuffled directions",
  explained_variance_pursuit: "explained variance, matching pursuit with the meta-SAE's decoder",
  explained_variance_smaller_: "explained variance, matching pursuit with the decoder of # latents",
  explained_variance_nearest_smaller_: "the same with those of # latents that are nearest to a meta-latent",
  explained_variance_random: "explained variance, matching pursuit with as many random directions",
  nearest_other_meta_latent_mean: "largest cosine of a meta-latent with another one, mean",
  nearest_other_latent_mean: "largest cosine of a decomposed direction with another one, mean",
  near_of_sharing_smaller_: "pairs of latents with a common meta-latent: share nearest to the same one of # latents",
  sharing_of_near_smaller_: "pairs nearest to the same one of # latents: share with a common meta-latent",
  near_of_sharing_equal_smaller_: "the same, as many pairs near a common one of # latents as with a common meta-latent",
  near_of_all_equal_smaller_: "share of all pairs that are near a common one of # latents then",
  nmse_before: "NMSE of the SAE",
  nmse_after: "NMSE of the SAE with reconstructed directions",
  ce_degradation_before: "CE degradation of the SAE, nats",
  ce_degradation_after: "CE degradation with reconstructed directions, nats",
};

function describeMetaSAE({ metrics, settings, sweep, sae }) {
  const [explained, shuffled] = [metrics.explained_variance, metrics.explained_variance_shuffled];
  let text =
    `${formatCount(metrics.meta_latents)} meta-latents, on average ${settings.k} per latent, explain ` +
    `${formatPercent(explained)} of the variance of the decoder directions of ${findLabel(sweep, sae.point)}`;
  if (explained != null && shuffled != null) {
    const points = (100 * Math.abs(explained - shuffled)).toFixed(1);
    const comparison = explained < shuffled ? "less" : "more";
    text += `: ${points} percentage points ${comparison} than for shuffled directions (${formatPercent(shuffled)})`;
  }
  text += ".";
  if (metrics.ce_degradation_after != null) {
    const [before, after] = [metrics.ce_degradation_before.toFixed(3), metrics.ce_degradation_after.toFixed(3)];
    text += " Replacing the directions by their reconstructions changes the CE degradation";
    text += ` from ${before} to ${after} nats.`;
  }
  return text;
}

function showMetaSAE(content, study) {
  const { metrics } = study;
  content.append(make("p", {}, describeMetaSAE(study)));
  content.append(listMetrics(study, META_METRICS));
  const charts = make("div.charts");
  content.append(charts);
  addChart(
    charts,
    "Explained variance of the decoder directions",
    "By the meta-SAE, and by matching pursuit with its decoder or a smaller SAE's. Control: shuffled directions.",
    () => {
      const bars = [
        ["meta-SAE", metrics.explained_variance, "lower"],
        ["shuffled<br>directions", metrics.explained_variance_shuffled, "plain"],
        ["its decoder,<br>matching pursuit", metrics.explained_variance_pursuit, "lower"],
        ["random directions,<br>matching pursuit", metrics.explained_variance_random, "plain"],
        ...study.smaller.map((sae) => [
          `${escapePlotly(`decoder of ${sae.dict_size} latents`)},<br>matching pursuit`,
          sae.explained_variance,
          "raise",
        ]),
      ];
      const known = bars.filter(([, value]) => value != null);
      return {
        traces: [
          {
            type: "bar",
            name: "explained variance",
            x: known.map(([name]) => name),
            y: known.map(([, value]) => value),
            text: known.map(([, value]) => formatPercent(value)),
            textposition: "outside",
            cliponaxis: false,
            marker: { color: known.map(([, , colorName]) => cssColor(colorName)) },
          },
        ],
        layout: {
          margin: { l: 50, r: 12, t: 24, b: 40 },
          yaxis: {
            title: "explained variance",
            tickformat: ".0%",
            range: [1.1 * Math.min(0, ...known.map(([, value]) => value)), 1.1],
          },
        },
      };
    },
  );
  addChart(charts, "Meta-latents per latent", "Number of latents by how many meta-latents each uses.", () => ({
    traces: [
      {
        type: "bar",
        name: "latents",
        x: study.per_latent.map((_, number) => number),
        y: study.per_latent,
        marker: { color: cssColor("lower") },
      },
    ],
    layout: { xaxis: { title: "meta-latents per latent", dtick: 1 }, yaxis: { title: "latents" } },
  }));
  if (Object.keys(study.matches).length) {
    const byLabel = Object.fromEntries(
      Object.entries(study.matches).map(([point, bins]) => [findLabel(study.sweep, point), bins]),
    );
    addChart(
      charts,
      "Best matches in smaller SAEs",
      "Largest cosine of each meta-latent with a latent of a smaller SAE. Dashed: mean for random directions.",
      () =>
        plotHistograms(
          byLabel,
          "largest cosine with a smaller SAE",
          "meta-latents",
          study.smaller.map((sae) => verticalLine(sae.best_match_mean_of_random, "random", "bad")),
        ),
    );
  }
  addNeighbourhoods(content, study, "Around a meta-latent");
}
