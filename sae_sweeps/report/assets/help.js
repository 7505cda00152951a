"use strict";
// Explanations of columns, shown while a heading has the focus or the pointer.

// What a metric measures, its unit, which values are better, and on which tokens it was measured.
function explainMetric(metric, measured) {
  const unit = { nats: "in nats", "%": "in per cent" }[metric.unit];
  const better = { min: "lower is better", max: "higher is better" }[metric.best];
  return [metric.explained, unit, better, measured].filter(Boolean).join("; ");
}

function explainPointMetric(metric) {
  const tokens = describeRange(report.points.map((point) => point.metrics?.held_out_tokens));
  return explainMetric(metric, tokens && `measured on ${tokens} held-out tokens`);
}

// Numbers as text, such as "4,096" or "2,048 to 4,096"; nothing if all are missing.
function describeRange(numbers) {
  const known = numbers.filter((number) => number != null).sort((a, b) => a - b);
  if (!known.length) return "";
  const [low, high] = [known[0], known.at(-1)].map((number) => number.toLocaleString("en-US"));
  return low === high ? low : `${low} to ${high}`;
}

const HELP = "help"; // id of the element with the explanation that is shown

// The attributes of an element that can have the focus, with an explanation.
const explainedBy = (text) => (text ? { "data-help": text, "aria-describedby": HELP } : {});

// A title with its explanation, which the keyboard reaches too; the title alone if there is none.
function makeExplained(title, text) {
  return text ? make("button.explained", { type: "button", ...explainedBy(text) }, title) : title;
}

// What the numbers below charts are, by the titles of their columns; those of metrics are explained as metrics.
const COLUMN_HELP = {
  SAE: "label of the point or points, as in the table",
  series: "what the row is of, as in the legend",
  tokens: "activations on which the point has trained, or on which the latent is active",
  "dictionary size": "number of latents of the SAE",
  "own time, s": "time of the point's own training steps, without the language model",
  "tokens per second": "training tokens per second of the point's own training steps",
  "Training MSE": "mean squared error per batch, of normalised activations",
  "Training loss": "what training minimises, the MSE with the auxiliary loss or the penalty on active latents",
  "Auxiliary loss": "error of the residual as dead latents reconstruct it",
  "L0 of the batch": "mean number of active latents per activation of a training batch",
  "Dead latents": "share of the latents that have not been active lately in training",
  "Mean threshold": "mean over latents of the value from which on a latent is active",
  "Learning rate": "of Adam at this step",
  "cosine threshold": "latents whose largest cosine with the small SAE is below it are called novel",
  "novel latents": "latents of the large SAE whose largest cosine with the small SAE is below the threshold",
  "NMSE with novel latents": "NMSE of the small SAE with all novel latents inserted",
  "L0 with novel latents": "L0 of the small SAE with all novel latents inserted",
  families: "groups of latents of both SAEs that cosines at or above the threshold connect",
  "largest family": "number of latents, of both SAEs, in the largest of these groups",
  "true positive rate": "share called novel among the latents that lower the error when inserted alone",
  "false positive rate": "share called novel among the latents that raise the error when inserted alone",
  "True positive rate (lower the error, called novel)":
    "share called novel among the latents that lower the error when inserted alone",
  "False positive rate (raise the error, called novel)":
    "share called novel among the latents that raise the error when inserted alone",
  latent: "number of the latent in the large SAE",
  "largest cosine": "cosine of its decoder direction with the nearest one of the small SAE",
  "largest cosine with the small SAE": "cosine of a latent's decoder direction with the nearest one of the small SAE",
  "relative change in MSE": "change in the small SAE's MSE when this latent alone is inserted, divided by that MSE",
  "position (small → large SAE)": "number of insertions and swaps that turn the small SAE into the large one",
  "inserted latents": "number of latents of the large SAE that are inserted into the small one",
  latents: "number of latents in this bin",
  "latents of the small : large SAE": "how many latents of each SAE a family has",
  "explained variance": "share of the variance of the decoder directions",
  "meta-latents per latent": "how many meta-latents reconstruct the direction of a latent",
  "meta-latents": "number of meta-latents in this bin",
  "share of the latents": "share of the decomposed latents of the SAE that use so many meta-latents",
  "meta-latents of": "the SAE that uses the meta-latents",
  "are used by": "the SAE that may use them too",
  "share of the meta-latents": "share of the meta-latents of the first SAE that the second one uses too",
  "number of the latent": "of a latent in the SAE, from 0",
  "meta-latent": "number of a meta-latent in the latent's direction",
  weight: "of the meta-latent in the latent's direction",
  "active latents": "number of active latents of an activation; middle of a bin",
  "share of activations": "share of the activations with this number of active latents, per number",
  "position in the sequence": "number of the token in its sequence, from 0",
  "mean active latents": "mean number of active latents of the activations at this position",
  "largest cosine with a smaller SAE": "of a meta-latent's direction with a decoder direction; middle of a bin",
  "log10 of the activation frequency":
    "share of tokens on which a latent is active, middle of a bin: -3 is one of 1,000",
};

// The explanation of a column of numbers below a chart.
function explainTitle(title) {
  const metric = report.metrics.find(({ name }) => metricTitle(name) === title);
  return metric ? explainMetric(metric) : COLUMN_HELP[title.replaceAll("\n", " ")];
}

// Explain the columns of the table of evaluated SAEs, which the page has from the start.
function explainEvaluated() {
  for (const heading of document.querySelectorAll('[aria-label="Evaluated SAEs: table"] thead th')) {
    const metric = report.metrics.find(({ title }) => title === heading.textContent);
    if (metric)
      heading.replaceChildren(makeExplained(metric.title, explainMetric(metric, "the last column has the tokens")));
  }
}

function addHelp() {
  const box = make("div.help", { id: HELP, role: "tooltip", hidden: true });
  document.querySelector("main").append(box);
  const show = (element) => {
    box.hidden = !element;
    if (!element) return;
    box.textContent = element.dataset.help;
    const { left, bottom, top } = element.getBoundingClientRect();
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8))}px`;
    box.style.top = `${bottom + height + 8 < innerHeight ? bottom + 6 : top - height - 6}px`;
  };
  const find = (event) => event.target.closest?.("[data-help]");
  for (const kind of ["focusin", "mouseover", "click"]) document.addEventListener(kind, (event) => show(find(event)));
  for (const kind of ["focusout", "scroll"]) document.addEventListener(kind, () => show(null), { capture: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && show(null));
}
