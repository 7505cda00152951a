"use strict";
// Histograms of latents: how often those of an SAE are active, and how strongly one is.

const FREQUENCY_BINS = 40;
let frequencyCharts = [];

// A chart of the frequencies of all latents of one card set, which `showFrequencies` chooses.
function addFrequencies(body) {
  const charts = make("div.charts.wide");
  body.append(charts);
  const chart = addChart(charts, "Activation frequency of latents", "", () => plotFrequencies(frequencies));
  chart.area.before(make("p.note", { id: "frequencies-caption" }));
  frequencyCharts = [chart];
}

let frequencies = []; // log10 of those of the latents that are ever active

async function showFrequencies(cardSet) {
  const index = await loadIndex(cardSet);
  if (cardSet !== explorerView.cardSet) return; // another was chosen meanwhile
  const all = index?.frequency ?? [];
  const active = all.filter((frequency) => frequency > 0);
  frequencies = active.map(Math.log10);
  const { label } = cardSets[cardSet];
  const noun = nounOf(cardSet);
  document.getElementById("frequencies-caption").textContent = index
    ? `${label}: ${pluralize(active.length, noun)} by the share of tokens on which each is active. The other ` +
      `${(all.length - active.length).toLocaleString("en-US")} are never active ${describeText(cardSet)}.`
    : `${label}: no examples.`;
  refresh(frequencyCharts);
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
