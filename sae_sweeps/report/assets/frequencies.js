"use strict";
// Histograms of latents: how often those of an SAE are active, and how strongly one is.

const FREQUENCY_BINS = 40;
const FREQUENCIES_AFTER = 300; // milliseconds after a click, so that its response comes first
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

let frequenciesOf = null; // card set

async function showFrequencies(cardSet) {
  const index = await loadIndex(cardSet);
  if (cardSet !== explorerView.cardSet || cardSet === frequenciesOf) return; // another was chosen meanwhile
  frequenciesOf = cardSet;
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
  if (!values.length) return { traces: [], layout: {} };
  const low = Math.floor(Math.min(-1, ...values));
  const width = -low / FREQUENCY_BINS;
  const counts = Array(FREQUENCY_BINS).fill(0);
  for (const value of values) counts[Math.min(FREQUENCY_BINS - 1, Math.floor((value - low) / width))]++;
  const bins = { first: low, width, counts };
  return plotHistograms({ "": bins }, "log10 of the activation frequency", "latents");
}

// A histogram of the magnitudes of a latent's activations, as elements: Plotly would delay the next click.
// histogram: [width, counts] of bins from 0
function makeMagnitudes({ cardSet, latent }, [width, counts]) {
  const title = `Activations of ${nounOf(cardSet)} ${latent}`;
  const largest = Math.max(...counts);
  const edge = (bin) => formatNumber(bin * width);
  const bars = counts.map((count, bin) =>
    make("span", {
      style: `height:${(100 * Math.log(1 + count)) / Math.log(1 + largest)}%`,
      title: `${edge(bin)} to ${edge(bin + 1)}: ${pluralize(count, "token")}`,
      "data-count": count,
    }),
  );
  const build = () => plotHistograms({ "": { first: 0, width, counts } }, "activation, by magnitude", "tokens");
  const listNumbers = () => [
    ["from", "to", "tokens"],
    counts.map((count, bin) => [bin * width, (bin + 1) * width, count]),
  ];
  const label = `${pluralize(largest, "token")} in the highest bar, on a logarithmic scale`;
  return [
    makeHeading4("Histogram of its activations, by magnitude"),
    make("div.bars", { role: "img", "aria-label": `${title}: ${label}` }, ...bars),
    make("div.ends", {}, make("span", {}, "0"), make("span", {}, label), make("span", {}, edge(counts.length))),
    makeChartTools({ title, build, listNumbers, hidden: new Set() }),
  ];
}
