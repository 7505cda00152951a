"use strict";
// Histograms of latents: how often those of an SAE are active, and how strongly one is.

const FREQUENCY_BINS = 40;
let frequencyCharts = [];

// A chart of the frequencies of all latents of the card set that is searched.
function addFrequencies(body) {
  const charts = make("div.charts.wide");
  const caption = make("p.note");
  body.append(charts);
  let frequencies = []; // of the latents that are ever active
  let shown = null;
  const build = () => {
    const { cardSet } = explorerView;
    if (shown !== cardSet) {
      loadIndex(cardSet).then((index) => {
        shown = cardSet;
        const all = index?.frequency ?? [];
        frequencies = all.filter((frequency) => frequency > 0);
        const never = `${pluralize(all.length - frequencies.length, nounOf(cardSet))} never active`;
        caption.textContent = index
          ? `${cardSets[cardSet].label}: share of tokens on which each ${nounOf(cardSet)} is active, of those active ` +
            `${describeText(cardSet)} at least once; ${never}.`
          : `${cardSets[cardSet].label}: no examples.`;
        refresh(frequencyCharts);
      });
      frequencies = [];
    }
    return plotFrequencies(frequencies.map(Math.log10));
  };
  const chart = addChart(charts, "Activation frequency of latents", "", build);
  chart.area.before(caption);
  frequencyCharts = [chart];
}

function plotFrequencies(values) {
  const low = Math.floor(Math.min(-1, ...values));
  const width = -low / FREQUENCY_BINS;
  const counts = Array(FREQUENCY_BINS).fill(0);
  for (const value of values) counts[Math.min(FREQUENCY_BINS - 1, Math.floor((value - low) / width))]++;
  const bins = { first: low, width, counts };
  return plotHistograms({ "": bins }, "log10 of the share of tokens on which a latent is active", "latents");
}

// A chart of how often a latent is active how strongly. histogram: [width, counts] of bins from 0
function addMagnitudes(parent, { cardSet, latent }, [width, counts]) {
  const edges = counts.map((_, bin) => bin * width);
  const caption = `Tokens by activation, of those on which it is active, on a logarithmic scale.`;
  addChart(
    parent,
    `Activations of ${nounOf(cardSet)} ${latent}`,
    caption,
    () => {
      const plot = plotHistograms({ "": { first: 0, width, counts } }, "activation, by magnitude", "tokens");
      plot.layout.yaxis = { ...plot.layout.yaxis, type: "log", range: [-0.3, Math.log10(Math.max(...counts)) + 0.2] };
      return plot;
    },
    () => [["from", "to", "tokens"], counts.map((count, bin) => [edges[bin], edges[bin] + width, count])],
  );
}
