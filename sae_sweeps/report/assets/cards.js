"use strict";
// The card of a latent or a meta-latent.

let cardRequests = 0;
async function drawCard(cardSet, latent) {
  const request = ++cardRequests;
  const { cards_per_block } = report.explorer;
  const name = cardSets[cardSet].cards[Math.floor(latent / cards_per_block)];
  const card = name == null ? {} : (await readBlock(name))[latent % cards_per_block];
  const contexts = await Promise.all((card.e ?? []).map(([, number]) => readContext(number)));
  if (request !== cardRequests) return; // another card was opened meanwhile
  const title = make("h3", { id: "card-title", tabindex: -1 }, `${nounOf(cardSet)} ${latent}`);
  const link = make("a", { href: linkTo(cardSet, latent), "aria-label": `Link to this ${nounOf(cardSet)}` }, "#");
  title.append(" ", link);
  const parts = [title, make("p.note", {}, `of ${cardSets[cardSet].label}`), ...makeFacts(cardSet, card)];
  if (card.e?.length) parts.push(makeHeading4("Top activating examples"), makeExamples(card.e, contexts));
  if (card.p?.length) parts.push(makeHeading4("Most promoted output tokens, with logits"), makeTokens(card.p));
  for (const decomposition of card.d ?? []) parts.push(...makeDecomposition(decomposition));
  if (card.l)
    parts.push(
      makeHeading4(`Latents with the largest weights, of ${pluralize(card.u, "latent")} that use it`),
      makeLinks(card.l.map(([at, weight]) => [cardSets[cardSet].sae, at, weight])),
    );
  if (card.m?.length) parts.push(makeHeading4("Nearest latents in smaller SAEs, by cosine"), makeLinks(card.m));
  parts.push(...makeNearest(cardSet, latent, card.n ?? []));
  document.getElementById("card").replaceChildren(...parts);
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
  else if (!card.f) facts.push("Never active in the text read.");
  else {
    const subject = sae == null ? "Active" : "One of the latents that use it is active";
    facts.push(
      `${subject} on ${formatShare(card.f)} of activations; ` +
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
  return facts.map((text) => make("p", {}, text));
}

const formatShare = (share) =>
  share >= 0.0995 ? `${(100 * share).toFixed(0)}%` : `${Number((100 * share).toPrecision(2))}%`;

// The context of an example: [text before, token, text after].
async function readContext(number) {
  const { contexts, contexts_per_block } = report.explorer;
  return (await readBlock(contexts[Math.floor(number / contexts_per_block)]))[number % contexts_per_block];
}

function makeExamples(listed, contexts) {
  const items = listed.map(([activation], at) => {
    const [before, token, after] = contexts[at].map(showWhitespace);
    const word = token.trimStart(); // a token's leading space is shown outside of the mark
    const parts = word
      ? [before + token.slice(0, token.length - word.length), make("mark", {}, word)]
      : [before, make("mark", {}, token)];
    return make("li", {}, make("span.value", {}, activation.toFixed(2)), make("q", {}, "…", ...parts, after, "…"));
  });
  return make("ol.examples", { "aria-label": "Examples with their activations" }, ...items);
}

// Links to latents with a value each, [card set, latent, value], and the tokens on which they are most active.
function makeLinks(entries) {
  const largest = Math.max(...entries.map(([, , value]) => Math.abs(value)));
  const items = entries.map(([cardSet, latent, value]) => {
    const tokens = make("small");
    loadIndex(cardSet).then((index) => index && (tokens.textContent = describeLatent(index, latent)));
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
