"use strict";
// The figures of a meta-SAE over SAEs of several sizes.

const SIZES_METRICS = {
  latents: "latents of all sizes",
  activations: "held-out activations read",
  decomposed: "decoder directions decomposed",
  never_active: "latents that are never active on these activations",
  meta_latents: "meta-latents",
  meta_latents_unused: "meta-latents used by no latent",
  meta_latents_of_all_sizes: "meta-latents used by every size",
  l0: "meta-latents per latent, mean",
  explained_variance: "explained variance of the decoder directions",
  explained_variance_shuffled: "explained variance of shuffled directions",
};

const nameSize = ({ dict_size }) => `${formatCount(dict_size)} latents`;

function describeSizes({ metrics, sizes }) {
  const only = sizes.map((size) => `${formatCount(size.meta_latents_only_here)} by the SAE of ${nameSize(size)} alone`);
  return (
    `${formatCount(metrics.meta_latents)} meta-latents explain ${formatPercent(metrics.explained_variance)} of the ` +
    `variance of the decoder directions of ${sizes.length} SAEs (shuffled directions: ` +
    `${formatPercent(metrics.explained_variance_shuffled)}). ${formatCount(metrics.meta_latents_of_all_sizes)} are used ` +
    `by every size, ${only.join(", ")}.`
  );
}

const DARK_FROM = 0.62; // share from which the colour of a cell is nearer to that of text than to that of the page

// A square of the shares that sizes have in common, with the numbers in its cells.
function addShares(charts, study, title, caption, shares) {
  const sizes = study.sizes.map(nameSize);
  addChart(
    charts,
    title,
    caption,
    () => ({
      traces: [
        {
          type: "heatmap",
          x: sizes,
          y: sizes,
          z: shares,
          text: shares.map((row) => row.map(formatPercent)),
          hovertemplate: "of the meta-latents of %{y},<br>%{x} use %{text}<extra></extra>",
          colorscale: [
            [0, cssColor("panel")],
            [1, cssColor("lower")],
          ],
          zmin: 0,
          zmax: 1,
          xgap: 2,
          ygap: 2,
          showscale: false,
        },
      ],
      layout: {
        annotations: shares.flatMap((row, i) =>
          row.map((share, j) => ({
            x: sizes[j],
            y: sizes[i],
            text: formatPercent(share),
            showarrow: false,
            font: { color: cssColor(share > DARK_FROM ? "back" : "text") },
          })),
        ),
        xaxis: { title: "are used by", type: "category", showgrid: false },
        yaxis: { title: "meta-latents of", type: "category", autorange: "reversed", showgrid: false },
      },
    }),
    () => [
      ["meta-latents of", "are used by", "share of the meta-latents"],
      sizes.flatMap((of, i) => sizes.map((by, j) => [of, by, shares[i][j]])),
    ],
  );
}

// Bars of each size, beside each other, in the colour of the size.
function addCounts(charts, { sizes }) {
  const means = sizes.map((size) => `${nameSize(size)}: mean ${formatNumber(size.l0)}`).join("; ");
  addChart(
    charts,
    "Meta-latents per latent by size",
    `Share of the latents of a size by how many meta-latents each uses. ${means}.`,
    () => ({
      traces: sizes.map(({ meta_latents_per_latent: counts, decomposed, ...size }, place) => ({
        type: "bar",
        name: nameSize(size),
        x: counts.map((_, number) => number),
        y: counts.map((count) => count / decomposed),
        marker: { color: cssColor(sizeColor(place)) },
        colorName: sizeColor(place),
        hovertemplate: "%{y:.1%} use %{x}",
      })),
      layout: {
        barmode: "group",
        xaxis: { title: "meta-latents per latent", dtick: 1 },
        yaxis: { title: "share of the latents", tickformat: ".0%" },
      },
    }),
  );
}

function addExplained(charts, { sizes }) {
  const bars = [
    ["the directions", "explained_variance", "lower"],
    ["shuffled directions", "explained_variance_shuffled", "plain"],
  ];
  addChart(
    charts,
    "Explained variance by size",
    "Of each size's directions around their own mean, by the meta-SAE of all sizes. Control: shuffled directions.",
    () => ({
      traces: bars.map(([name, value, colorName]) => ({
        type: "bar",
        name,
        x: sizes.map(({ dict_size }) => formatCount(dict_size)),
        y: sizes.map((size) => size[value]),
        text: sizes.map((size) => formatPercent(size[value])),
        textposition: "outside",
        cliponaxis: false,
        marker: { color: cssColor(colorName) },
        colorName,
      })),
      layout: {
        barmode: "group",
        xaxis: { title: "dictionary size", type: "category" },
        yaxis: { title: "explained variance", tickformat: ".0%" },
      },
    }),
  );
}

function showMetaSizes(content, study) {
  content.append(make("p", {}, describeSizes(study)), listMetrics(study, SIZES_METRICS));
  const charts = make("div.charts");
  content.append(charts);
  const shared = "Of the meta-latents that a size uses (row), the share that another one uses too (column)";
  addShares(charts, study, "Meta-latents that sizes share", `${shared}.`, study.shared);
  const control = `${shared}, of a meta-SAE of shuffled directions: what they share by chance.`;
  addShares(charts, study, "Meta-latents that sizes share, shuffled directions", control, study.shared_shuffled);
  addCounts(charts, study);
  addExplained(charts, study);
  addNeighbourhoods(content, study, "Around a meta-latent of several sizes");
}

const addSizes = () =>
  addStudySection(
    "sizes-body",
    "meta_sizes",
    report.commands.meta_sizes,
    (study) =>
      `${study.metrics.meta_latents} meta-latents, k ${study.settings.k}, of ` +
      `${study.points.map((point) => findLabel(study.sweep, point)).join(", ")}${study.differences}`,
    [
      ["Explained variance", "explained_variance", formatPercent, "share of the decoder directions' variance"],
      ["Explained variance, shuffled", "explained_variance_shuffled", formatPercent, "the same of shuffled directions"],
      ["Meta-latents used by every size", "meta_latents_of_all_sizes", formatNumber, "of all meta-latents"],
      ["Used by no latent", "meta_latents_unused", formatNumber, "meta-latents that are in no decomposition"],
    ],
    showMetaSizes,
  );
