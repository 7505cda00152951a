"use strict";
// The card of a latent or a meta-latent.

const cardRequests = { card: 0, pinned: 0 };

// Draw the card of a latent into an element, or empty the element if there is no latent.
async function drawCard(id, target) {
  const request = ++cardRequests[id];
  const parts = target ? await makeCard(id, target) : [];
  if (request !== cardRequests[id]) return; // another card was opened meanwhile
  const element = document.getElementById(id);
  element.replaceChildren(...parts);
}

// The content of the card of a latent.
async function readCard({ cardSet, latent }) {
  const { cards_per_block } = report.explorer;
  const name = cardSets[cardSet].cards[Math.floor(latent / cards_per_block)];
  return name == null ? {} : (await readBlock(name))[latent % cards_per_block];
}

async function makeCard(id, target) {
  const { cardSet, latent } = target;
  const card = await readCard(target);
  const contexts = await Promise.all((card.e ?? []).map(([, number]) => readContext(number)));
  const title = make("h3", { id: `${id}-title`, tabindex: -1 }, `${nounOf(cardSet)} ${latent}`);
  const link = make("a", { href: linkTo(cardSet, latent), "aria-label": `Link to this ${nounOf(cardSet)}` }, "#");
  title.append(" ", link);
  const pin =
    id === "card"
      ? make("button", { type: "button", onclick: () => pinCard(target) }, "Keep beside others")
      : make("button", { type: "button", onclick: () => pinCard(null) }, "Remove");
  const parts = [
    make("div.top", {}, title, pin),
    make("p.note", {}, `of ${cardSets[cardSet].label}`),
    ...makeLabel(card.b),
    ...makeFacts(cardSet, card),
  ];
  if (card.e?.length) {
    parts.push(makeHeading4("Top activating examples"), makeExamples(card.e, contexts));
    if (card.e.some(([, , around]) => around))
      parts.push(make("p.note", {}, "The stronger a token's colour, the higher the latent's activation on it."));
  }
  if (card.p?.length) parts.push(makeHeading4("Most promoted output tokens, with logits"), makeTokens(card.p));
  if (card.q?.length) parts.push(makeHeading4("Most suppressed output tokens, with logits"), makeTokens(card.q));
  if (card.h) parts.push(...makeMagnitudes(target, card.h));
  for (const decomposition of card.d ?? []) parts.push(...makeDecomposition(decomposition));
  if (card.l)
    parts.push(
      makeHeading4(`Latents with the largest weights, of ${pluralize(card.u, "latent")} that use it`),
      makeLinks(card.l.map(([at, weight]) => [cardSets[cardSet].sae, at, weight])),
    );
  if (card.m?.length) parts.push(makeHeading4("Nearest latents in smaller SAEs, by cosine"), makeLinks(card.m));
  return [...parts, ...makeNearest(cardSet, latent, card.n ?? [])];
}

// The label of a latent, as text: [text, score, source].
function makeLabel(label) {
  if (!label) return [];
  const [text, score, source] = label;
  const remarks = [source ?? "", score == null ? "" : `score ${score}`].filter(Boolean);
  const remark = remarks.length ? make("small", {}, ` (${remarks.join(", ")})`) : null;
  return [make("p.label", {}, make("strong", {}, text), remark)];
}

const makeHeading4 = (text) => make("h4", {}, text);

function makeTokens(promoted) {
  const items = promoted.map(([token, logit]) =>
    make("li", {}, showWhitespace(token), make("small", {}, ` ${logit.toFixed(1)}`)),
  );
  return make("ul.tokens", {}, ...items);
}

function makeDecomposition([metaSAE, explained, weights]) {
  const { label, shuffled } = cardSets[metaSAE];
  const control = shuffled == null ? "" : `; mean of shuffled directions: ${(100 * shuffled).toFixed(1)}%`;
  return [
    makeHeading4(`Meta-latents: explained variance ${(100 * explained).toFixed(1)}%, with ${label}${control}`),
    makeLinks(weights.map(([at, weight]) => [metaSAE, at, weight])),
  ];
}

function makeNearest(cardSet, latent, nearest) {
  const sorted = [...nearest].sort((a, b) => b[2] - a[2]);
  const sameStart = sorted.filter((match) => startedEqual(cardSet, latent, match));
  const others = sorted.filter((match) => !sameStart.includes(match));
  const parts = [];
  if (others.length) parts.push(makeHeading4("Nearest latents in other SAEs, by cosine"), makeLinks(others));
  if (sameStart.length)
    parts.push(
      makeHeading4("Nearest latents with the same initial direction"),
      make("p.note", {}, "SAEs of one size and seed start with equal directions, so a high cosine is expected here."),
      makeLinks(sameStart),
    );
  return parts;
}

// Whether another SAE's latent started training with the same direction: SAEs of one size and seed do.
function startedEqual(cardSet, latent, [other, otherLatent]) {
  const [a, b] = [cardSet, other].map((number) => report.points.find((point) => point.key === cardSets[number].key));
  return latent === otherLatent && a && b && a.dict_size === b.dict_size && a.seed === b.seed;
}

function makeFacts(cardSet, card) {
  const { cards, has_examples, sae } = cardSets[cardSet];
  const facts = [];
  if (!cards.length) facts.push("The cards of this SAE are left out to limit the size of this page.");
  else if (!has_examples) facts.push("No examples: run task=latents for this SAE.");
  else if (!card.f) facts.push(`Never active ${describeText(cardSet)}.`);
  else {
    const subject = sae == null ? "Active" : "One of the latents that use it is active";
    facts.push(
      `${subject} on ${formatShare(card.f)} of ${describeActivations(cardSet)}; ` +
        `mean activation when active ${card.a[0]}, maximum ${card.a[1]}.`,
    );
  }
  for (const [small, novel, change, threshold] of card.s ?? []) {
    const kind = novel ? "Novel latent" : "Reconstruction latent";
    const effect = `${change < 0 ? "lowers" : "raises"} the MSE by ${formatNumber(Math.abs(100 * change))}%`;
    facts.push(
      `${kind} compared with ${cardSets[small].label} (threshold ${threshold}); ` +
        `inserting it alone into that SAE ${effect}.`,
    );
  }
  for (const [isSameStart, cosine, count] of card.t ?? []) {
    const others = isSameStart ? "of the same initialisation, on data in another order" : "of another initialisation";
    facts.push(
      `Stability: the nearest latent in ${pluralize(count, "SAE")} ${others} has a ${count > 1 ? "mean " : ""}cosine of ` +
        `${formatNumber(cosine)}.`,
    );
  }
  return facts.map((text) => make("p", {}, text));
}

function describeActivations(cardSet) {
  const { tokens } = cardSets[cardSet];
  return tokens ? pluralize(tokens, "held-out activation") : "activations";
}

const formatShare = (share) =>
  share >= 0.0995 ? `${(100 * share).toFixed(0)}%` : `${Number((100 * share).toPrecision(2))}%`;

// The context of an example: [text before, token, text after].
async function readContext(number) {
  const { contexts, contexts_per_block } = report.explorer;
  return (await readBlock(contexts[Math.floor(number / contexts_per_block)]))[number % contexts_per_block];
}

const SHADES = 5; // classes of the strength of an activation, relative to the largest one of the latent

// A part of a context on which the latent is active, shaded by its activation.
function makeShaded(text, activation, largest) {
  const shade = Math.max(1, Math.ceil((SHADES * Math.abs(activation)) / Math.abs(largest)));
  return make(`span.shade${Math.min(SHADES, shade)}`, { title: formatNumber(activation) }, text);
}

// A text as it is shown, with the parts of `around` that lie in it shaded.
// around: [first character in the context, number of characters, activation], ...; offset: of the text in the context
function shadeText(text, offset, around, largest) {
  const characters = [...text];
  const parts = [];
  let done = 0;
  for (const [first, count, activation] of around) {
    const [from, to] = [first - offset, first - offset + count];
    if (from < done || to > characters.length) continue;
    parts.push(showWhitespace(characters.slice(done, from).join("")));
    parts.push(makeShaded(showWhitespace(characters.slice(from, to).join("")), activation, largest));
    done = to;
  }
  return [...parts, showWhitespace(characters.slice(done).join(""))];
}

function makeExamples(listed, contexts) {
  const largest = listed[0][0];
  const items = listed.map(([activation, , flat = []], at) => {
    const [before, token, after] = contexts[at];
    const around = [];
    for (let n = 0; n < flat.length; n += 3) around.push(flat.slice(n, n + 3));
    const start = [...before].length;
    const shown = showWhitespace(token);
    const word = shown.trimStart(); // a token's leading space is shown outside of the mark
    const mark = make("mark", { title: formatNumber(activation) }, word || shown);
    const quote = make(
      "q",
      {},
      "…",
      ...shadeText(
        before,
        0,
        around.filter(([first]) => first < start),
        largest,
      ),
      word ? shown.slice(0, shown.length - word.length) : "",
      mark,
      ...shadeText(
        after,
        start + [...token].length,
        around.filter(([first]) => first > start),
        largest,
      ),
      "…",
    );
    return make("li", {}, make("span.value", {}, activation.toFixed(2)), quote);
  });
  return make("ol.examples", { "aria-label": "Examples with their activations" }, ...items);
}

// Links to latents with a value each, [card set, latent, value], and the tokens on which they are most active.
function makeLinks(entries) {
  const largest = Math.max(...entries.map(([, , value]) => Math.abs(value)));
  const items = entries.map(([cardSet, latent, value]) => {
    const tokens = make("small");
    loadIndex(cardSet).then((index) => index && (tokens.textContent = describeLatent(cardSet, index, latent)));
    const { label, cards, sae } = cardSets[cardSet];
    const text = sae == null ? `latent ${latent} of ${label}` : `meta-latent ${latent}`;
    const target = cards.length ? make("a", { href: linkTo(cardSet, latent) }, text) : text;
    const width = (100 * Math.abs(value)) / largest;
    return make(
      "li",
      {},
      make("span.value", {}, value.toFixed(3), make("span.bar", { style: `width:${width}%` })),
      make("div", {}, target, tokens),
    );
  });
  return make("ul.weights", {}, ...items);
}
