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

// Explain the columns of the table of evaluated SAEs, which the page has from the start.
function explainEvaluated() {
  for (const heading of document.querySelectorAll('[aria-label="Evaluated SAEs"] thead th')) {
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
