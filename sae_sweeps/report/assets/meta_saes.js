"use strict";
// What is shown of a meta-SAE study.

const META_METRICS = {
  latents: "latents",
  decomposed: "directions decomposed",
  never_active: "left out: never active in the text read",
  meta_latents: "meta-latents",
  meta_latents_unused: "meta-latents that no latent uses",
  l0: "meta-latents of a latent, on average",
  explained_variance: "explained variance of the directions",
  explained_variance_shuffled: "the same of shuffled directions",
  explained_variance_pursuit: "by pursuit with the meta-SAE's decoder",
  nmse_before: "NMSE of the SAE",
  nmse_after: "NMSE with directions replaced",
  ce_degradation_before: "CE degradation of the SAE, nats",
  ce_degradation_after: "CE degradation with directions replaced, nats",
};

function showMetaSAE(inside, study) {
  const { metrics: numbers, settings } = study;
  const [here, shuffled] = [numbers.explained_variance, numbers.explained_variance_shuffled];
  inside.append(
    make(
      "p",
      {},
      `${whole(numbers.meta_latents)} meta-latents, ${settings.k} for each latent on average, explain ${percent(here)} of the decoder directions of ${labelOf(study.sweep, study.sae.point)}` +
        (shuffled == null
          ? ""
          : `, ${(100 * (here - shuffled)).toFixed(1)} points ${here < shuffled ? "less" : "more"} than of shuffled directions (${percent(shuffled)})`) +
        (numbers.ce_degradation_after == null
          ? "."
          : `; with its directions replaced, the CE degradation goes from ${numbers.ce_degradation_before.toFixed(3)} to ${numbers.ce_degradation_after.toFixed(3)} nats.`),
    ),
  );
  inside.append(numbersOf(study, META_METRICS));
  const charts = make("div.charts");
  inside.append(charts);
  addChart(
    charts,
    "Explained variance of the decoder directions",
    "The meta-SAE, smaller SAEs' decoders, and the control.",
    () => {
      const all = [
        ["meta-SAE", numbers.explained_variance, "lower"],
        ["shuffled<br>directions", numbers.explained_variance_shuffled, "plain"],
        ["its decoder,<br>pursuit", numbers.explained_variance_pursuit, "lower"],
        ...study.smaller.map((one) => [`decoder of<br>${one.dict_size}, pursuit`, one.explained_variance, "raise"]),
      ];
      const some = all.filter(([, value]) => value != null);
      return {
        traces: [
          {
            type: "bar",
            name: "explained variance",
            x: some.map(([name]) => name),
            y: some.map(([, value]) => value),
            text: some.map(([, value]) => percent(value)),
            textposition: "outside",
            cliponaxis: false,
            marker: { color: some.map(([, , tint]) => color(tint)) },
          },
        ],
        layout: {
          showlegend: false,
          margin: { l: 50, r: 12, t: 24, b: 40 },
          yaxis: {
            title: "explained variance",
            tickformat: ".0%",
            range: [Math.min(0, ...some.map(([, value]) => value)), 1],
          },
        },
      };
    },
  );
  addChart(charts, "Meta-latents of a latent", "How many latents use so many meta-latents.", () => ({
    traces: [
      {
        type: "bar",
        name: "latents",
        x: study.per_latent.map((_, number) => number),
        y: study.per_latent,
        marker: { color: color("lower") },
      },
    ],
    layout: { showlegend: false, xaxis: { title: "meta-latents of a latent", dtick: 1 }, yaxis: { title: "latents" } },
  }));
  if (Object.keys(study.matches).length) {
    const named = Object.fromEntries(
      Object.entries(study.matches).map(([point, bins]) => [labelOf(study.sweep, point), bins]),
    );
    addChart(
      charts,
      "Best matches among smaller SAEs",
      "The largest cosine of each meta-latent with a latent of a smaller SAE; dashed: the mean of random directions.",
      () =>
        histogramOf(
          named,
          "largest cosine with a smaller SAE's latent",
          "meta-latents",
          study.smaller.map((one) => mark(one.best_match_mean_of_random, "random", "bad")),
        ),
    );
  }
}
