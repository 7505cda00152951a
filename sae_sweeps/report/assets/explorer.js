"use strict";
// The latent explorer: search by token or number, a list of results, and links of the form #/SAE/latent.

const RESULTS_PER_PAGE = 60;
const cardSets = report.explorer?.card_sets ?? []; // one per SAE and meta-SAE
const explorerView = {
  cardSet: cardSets.findIndex((cardSet) => cardSet.index),
  query: "",
  latent: null,
  order: "number",
  activeOnly: true,
  limit: RESULTS_PER_PAGE,
};

const linkTo = (cardSet, latent) => `#/${encodeURIComponent(cardSets[cardSet].key)}/${latent}`;
const nounOf = (cardSet) => (cardSets[cardSet].sae == null ? "latent" : "meta-latent");

// The card set and latent of a link, or null.
function parseLink(hash) {
  const match = /^#\/(.+)\/(\d+)$/.exec(hash);
  if (!match) return null;
  let key = match[1];
  try {
    key = decodeURIComponent(key);
  } catch {}
  const cardSet = cardSets.findIndex((candidate) => candidate.key === key);
  const latent = Number(match[2]);
  return cardSet >= 0 && latent < cardSets[cardSet].count ? { cardSet, latent } : null;
}

// The search index of a card set, with its tokens in lower case; null if it has none.
const indices = new Map();
function loadIndex(cardSet) {
  if (!indices.has(cardSet)) {
    const { index: name } = cardSets[cardSet];
    const loading = name == null ? Promise.resolve(null) : readBlock(name);
    indices.set(
      cardSet,
      loading.then(
        (index) => index && { ...index, searchable: index.tokens.map((token) => token.trim().toLowerCase()) },
      ),
    );
  }
  return indices.get(cardSet);
}

// Latents ranked by the example tokens that equal a query word, then those that contain one, then promoted tokens.
// Without a query all latents, in the chosen order.
function searchLatents(index, { query, order, activeOnly }) {
  const words = splitWords(query);
  if (!words.length) {
    const listed = index.frequency
      .map((_, latent) => latent)
      .filter((latent) => !activeOnly || index.frequency[latent] > 0);
    return order === "number" ? listed : listed.sort((a, b) => index.frequency[b] - index.frequency[a]);
  }
  const scores = index.searchable.map((token) =>
    words.includes(token) ? 100 : words.some((word) => token.includes(word)) ? 1 : 0,
  );
  const promotedScores = index.searchable.map((token) => (words.includes(token) ? 10 : 0));
  const matches = [];
  for (let latent = 0; latent < index.examples.length; latent++) {
    let score = 0;
    for (const token of index.examples[latent]) score += scores[token];
    for (const token of index.promoted[latent]) score += promotedScores[token];
    if (score) matches.push([latent, score]);
  }
  matches.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const numbers = words
    .map(Number)
    .filter((word) => Number.isInteger(word) && word >= 0 && word < index.examples.length);
  return [...new Set([...numbers, ...matches.map(([latent]) => latent)])];
}

// The distinct tokens on which a latent is most active, at most four.
function describeLatent(index, latent) {
  const tokens = [...new Set(index.examples[latent].map((token) => showWhitespace(index.tokens[token]).trim()))];
  return tokens.length ? tokens.slice(0, 4).join(" · ") : "never active in the text read";
}

// The same with its frequency, and with the promoted tokens if only these match the query.
function describeResult(index, latent, query) {
  const words = splitWords(query);
  const matching = (tokens) => tokens.filter((token) => words.some((word) => index.searchable[token].includes(word)));
  const promoted = matching(index.examples[latent]).length
    ? []
    : matching(index.promoted[latent]).map((token) => showWhitespace(index.tokens[token]).trim());
  const frequency = index.frequency[latent] > 0 ? ` (${formatShare(index.frequency[latent])})` : "";
  const suffix = promoted.length ? `; promotes ${[...new Set(promoted)].join(" · ")}` : "";
  return describeLatent(index, latent) + frequency + suffix;
}

const showWhitespace = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "→");

let searches = 0;
async function drawResults() {
  const request = ++searches;
  const { cardSet, query, limit, latent: current } = explorerView;
  const index = await loadIndex(cardSet);
  if (request !== searches) return; // the search was changed meanwhile
  const results = index ? searchLatents(index, explorerView) : [];
  const shown = results.slice(0, limit);
  const items = shown.map((latent) => {
    const attributes = {
      href: linkTo(cardSet, latent),
      "aria-current": current === latent ? "true" : null,
      "data-latent": latent,
    };
    const description = make("small", {}, describeResult(index, latent, query));
    return make("li", {}, make("a", attributes, `${nounOf(cardSet)} ${latent}`, description));
  });
  document.getElementById("results").replaceChildren(...items);
  document.getElementById("results-status").textContent = describeResults(cardSet, index, results.length, shown.length);
  document.getElementById("more").hidden = shown.length === results.length;
  if (explorerView.latent !== null) return;
  if (query.trim() && results.length) drawCard(cardSet, results[0]);
  else emptyCard();
}

// Show no latent: nothing is searched for, or nothing was found.
function emptyCard() {
  cardRequests++; // a card that is still being decoded is not shown
  document
    .getElementById("card")
    .replaceChildren(
      make("h3", { id: "card-title", tabindex: -1 }, "No latent chosen"),
      make("p.note", {}, "Search for a token, or choose a latent from the list. Every card can be linked to."),
    );
}

function describeResults(cardSet, index, found, shown) {
  const noun = nounOf(cardSet);
  const { count } = cardSets[cardSet];
  if (!index) return "No examples: run task=latents for this SAE.";
  if (explorerView.query.trim())
    return found > shown
      ? `The ${shown} best of ${pluralize(found, noun)}.`
      : `${pluralize(found, noun)} of ${count.toLocaleString("en-US")}.`;
  const inactive = (count - found).toLocaleString("en-US");
  return (
    `${shown} of ${pluralize(found, noun)}` + (found < count ? `; ${inactive} never active in the text read.` : ".")
  );
}

// Change the search and show its first results.
function changeSearch(change) {
  Object.assign(explorerView, { limit: RESULTS_PER_PAGE }, change);
  drawResults();
}

// Open the card that the address links to.
async function followLink() {
  const target = parseLink(location.hash);
  if (!target) return;
  const hasChangedSet = explorerView.cardSet !== target.cardSet;
  Object.assign(explorerView, target);
  document.getElementById("card-set").value = String(target.cardSet);
  for (const link of document.querySelectorAll("#results a")) {
    if (!hasChangedSet && Number(link.dataset.latent) === target.latent) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  await Promise.all([drawCard(target.cardSet, target.latent), hasChangedSet ? drawResults() : null]);
  document.getElementById("card-title").focus({ preventScroll: true });
  const card = document.getElementById("card");
  const { top, bottom } = card.getBoundingClientRect();
  if (top < 0 || top > innerHeight - 120 || bottom < 0) card.scrollIntoView({ block: "start" });
}

async function openRandomLatent() {
  const { cardSet } = explorerView;
  const index = await loadIndex(cardSet);
  const all = Array.from({ length: cardSets[cardSet].count }, (_, latent) => latent);
  const candidates = index ? all.filter((latent) => index.frequency[latent] > 0) : all;
  if (candidates.length) location.hash = linkTo(cardSet, candidates[Math.floor(Math.random() * candidates.length)]);
}

function makeSearchForm() {
  const options = cardSets
    .map((cardSet, number) => [String(number), cardSet.label, cardSet])
    .filter(([, , cardSet]) => cardSet.cards.length);
  const select = makeSelect(options, String(explorerView.cardSet), (value) => {
    changeSearch({ cardSet: Number(value), latent: null });
  });
  select.id = "card-set";
  const search = make("input", {
    type: "search",
    id: "search",
    placeholder: "tokens or a number",
    oninput: (event) => changeSearch({ query: event.target.value }),
  });
  const orders = [
    ["number", "Number"],
    ["frequency", "Frequency"],
  ];
  const order = makeSelect(orders, "number", (value) => changeSearch({ order: value }));
  const inactive = make("input", {
    type: "checkbox",
    onchange: (event) => changeSearch({ activeOnly: !event.target.checked }),
  });
  return make(
    "form.controls",
    { "aria-label": "Search latents", onsubmit: (event) => event.preventDefault() },
    makeLabelled("SAE", select),
    makeLabelled("Search", search),
    makeLabelled("Order", order),
    makeLabelled("Include never-active", inactive, true),
    make("button", { type: "button", onclick: openRandomLatent }, "Random latent"),
  );
}

function makeResultList() {
  const showMore = () => {
    explorerView.limit += RESULTS_PER_PAGE;
    drawResults();
  };
  return make(
    "div",
    {},
    make("p.note", { id: "results-status", role: "status" }),
    make("ul.results", { id: "results", tabindex: 0, "aria-label": "Search results" }),
    make("button", { type: "button", id: "more", hidden: true, onclick: showMore }, "Show more"),
  );
}

function addExplorer() {
  const body = document.getElementById("explorer-body");
  if (!report.explorer) {
    const command = make("code", {}, report.commands.latents);
    body.append(
      make("p.note", {}, "No examples of the latents yet. To find them in held-out text, run ", command, "."),
    );
    return;
  }
  for (const note of listNotes()) body.append(make("p.note", {}, note));
  const card = make("article.card", { id: "card", "aria-labelledby": "card-title" });
  body.append(makeSearchForm(), make("div.explorer", {}, makeResultList(), card));
  emptyCard();
  addEventListener("hashchange", followLink);
  // The index is large: it is decoded when the explorer is about to come into view, or when a link needs it.
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      drawResults();
    },
    { rootMargin: "600px" },
  );
  observer.observe(body);
  followLink();
}

// What the explorer does not show, and why.
function listNotes() {
  const { without_cards, too_slow, unreadable } = report.explorer;
  const joinLabels = (listed) => listed.map((cardSet) => cardSet.label).join("; ");
  const withoutExamples = joinLabels(cardSets.filter((cardSet) => !cardSet.has_examples && cardSet.cards.length));
  const tooLarge = joinLabels(cardSets.filter((cardSet) => !cardSet.cards.length));
  const notes = [];
  if (withoutExamples) notes.push(`Nearest latents only, no examples (run task=latents): ${withoutExamples}.`);
  if (tooLarge) notes.push(`No cards, to limit the size of this page (raise explorer_mib): ${tooLarge}.`);
  if (without_cards.length)
    notes.push(`No cards, as a page has those of at most 12 SAEs: ${without_cards.join("; ")}.`);
  if (too_slow.length) notes.push(`Not compared with all other SAEs, to limit the time: ${too_slow.join("; ")}.`);
  if (unreadable.length) notes.push(`Not compared, as their files cannot be read: ${unreadable.join("; ")}.`);
  return notes;
}
