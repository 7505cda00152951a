"use strict";
// The latent explorer: a list of search results, one or two cards, and links of the form #/SAE/latent.

const RESULTS_PER_PAGE = 60;
const cardSets = report.explorer?.card_sets ?? []; // one per SAE and meta-SAE
const SEARCH_AT_FIRST = { everywhere: false, query: "", order: "match", reversed: false, filter: "", activeOnly: true };
const FIRST_SET = cardSets.findIndex((cardSet) => cardSet.index);
const explorerView = {
  ...SEARCH_AT_FIRST,
  cardSet: FIRST_SET, // of the search, unless `everywhere`: then all are searched
  opened: null, // the { cardSet, latent } of the card
  pinned: null, // and of the card beside it
  limit: RESULTS_PER_PAGE,
  drawn: false, // whether results were listed, which decodes an index
};

const linkTo = (cardSet, latent) => `#/${encodeURIComponent(cardSets[cardSet].key)}/${latent}`;
const isSame = (a, b) => a?.cardSet === b?.cardSet && a?.latent === b?.latent;
const nounOf = (cardSet) => (cardSets[cardSet].sae == null ? "latent" : "meta-latent");

// The card set and latent of a link without its "#", or null.
function parseLink(link) {
  const match = /^\/(.+)\/(\d+)$/.exec(link);
  if (!match) return null;
  let key = match[1];
  try {
    key = decodeURIComponent(key);
  } catch {}
  const cardSet = cardSets.findIndex((candidate) => candidate.key === key);
  const latent = Number(match[2]);
  return cardSet >= 0 && latent < cardSets[cardSet].count ? { cardSet, latent } : null;
}

let searches = 0;
async function drawResults() {
  const request = ++searches;
  const search = { ...explorerView, drawn: true };
  explorerView.drawn = true;
  const results = await searchLatents(search);
  const shown = results.slice(0, search.limit);
  const shownSets = [...new Set(shown.map((result) => result.cardSet))];
  const loaded = new Map(await Promise.all(shownSets.map(async (number) => [number, await loadIndex(number)])));
  if (request !== searches) return; // the search was changed meanwhile
  const items = shown.map((result) => {
    const { cardSet, latent } = result;
    const attributes = {
      href: linkTo(cardSet, latent),
      "aria-current": isSame(explorerView.opened, result) ? "true" : null,
      "data-latent": latent,
      "data-set": cardSet,
    };
    const set = search.everywhere ? make("small", {}, `of ${cardSets[cardSet].label}`) : null;
    const description = make("small", {}, describeResult(result, loaded.get(cardSet), search));
    return make("li", {}, make("a", attributes, `${nounOf(cardSet)} ${latent}`, set, description));
  });
  document.getElementById("results").replaceChildren(...items);
  document.getElementById("results-status").textContent = describeResults(search, results.length, shown.length);
  document.getElementById("more").hidden = shown.length === results.length;
  setTimeout(showFrequencies, FREQUENCIES_AFTER, explorerView.cardSet);
  if (explorerView.opened) return;
  if (search.query.trim() && results.length) drawCard("card", results[0]);
  else emptyCard();
}

// Show no latent: nothing is searched for, or nothing was found.
function emptyCard() {
  cardRequests.card++; // a card that is still being decoded is not shown
  document
    .getElementById("card")
    .replaceChildren(
      make("h3", { id: "card-title", tabindex: -1 }, "No latent chosen"),
      make("p.note", {}, "Search for a token or label, or choose a latent from the list. Every card can be linked to."),
    );
}

function describeResults({ cardSet, everywhere, query, filter }, found, shown) {
  const noun = everywhere ? "latent" : nounOf(cardSet);
  const sets = everywhere ? indexedSets() : [cardSet];
  const count = sets.reduce((sum, number) => sum + cardSets[number].count, 0);
  const suffix = everywhere ? ` in ${sets.length} SAEs and meta-SAEs` : "";
  if (!everywhere && !cardSets[cardSet].index) return "No examples: run task=latents for this SAE.";
  if (query.trim() || filter)
    return found > shown
      ? `The ${shown} best of ${pluralize(found, noun)}${suffix}.`
      : `${pluralize(found, noun)} of ${count.toLocaleString("en-US")}${suffix}.`;
  const inactive = (count - found).toLocaleString("en-US");
  const never = everywhere ? "in the text read" : describeText(cardSet);
  return (
    `${shown} of ${pluralize(found, noun)}${suffix}` + (found < count ? `; ${inactive} never active ${never}.` : ".")
  );
}

// Change the search and show its first results.
function changeSearch(change) {
  Object.assign(explorerView, { limit: RESULTS_PER_PAGE }, change);
  updateAddress();
  drawResults();
}

// Draw the card of a latent, and beside it the pinned one.
function openCard(target) {
  explorerView.opened = target;
  for (const link of document.querySelectorAll("#results a")) {
    const isOpened = isSame(target, { cardSet: Number(link.dataset.set), latent: Number(link.dataset.latent) });
    if (isOpened) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  return drawCard("card", target);
}

// Keep a card beside those that are opened, or remove it.
function pinCard(target) {
  explorerView.pinned = target;
  document.getElementById("pinned").hidden = !target;
  updateAddress();
  return drawCard("pinned", target);
}

// Open the card that the address links to.
async function followLink() {
  const target = parseLink(splitAddress().place);
  if (!target) return;
  const hasChangedSet = !explorerView.everywhere && explorerView.cardSet !== target.cardSet;
  if (hasChangedSet) {
    Object.assign(explorerView, { cardSet: target.cardSet, opened: target, order: "match", filter: "" });
    drawSearchForm();
  }
  await Promise.all([openCard(target), hasChangedSet ? drawResults() : null]);
  document.getElementById("card-title").focus({ preventScroll: true });
  const card = document.getElementById("card");
  const { top, bottom } = card.getBoundingClientRect();
  if (top < 0 || top > innerHeight - 120 || bottom < 0) card.scrollIntoView({ block: "start" });
}

async function openRandomLatent() {
  const sets = explorerView.everywhere ? indexedSets() : [explorerView.cardSet];
  const cardSet = sets[Math.floor(Math.random() * sets.length)];
  const index = await loadIndex(cardSet);
  const all = Array.from({ length: cardSets[cardSet].count }, (_, latent) => latent);
  const candidates = index ? all.filter((latent) => index.frequency[latent] > 0) : all;
  if (candidates.length) location.hash = linkTo(cardSet, candidates[Math.floor(Math.random() * candidates.length)]);
}

const EVERYWHERE = "all"; // as value of the choice of a card set

// The form with the choices of the search, as they are now.
function drawSearchForm() {
  const { cardSet, everywhere, query, order, reversed, filter, activeOnly } = explorerView;
  const sets = cardSets.map((one, number) => [String(number), one.label, one]).filter(([, , one]) => one.cards.length);
  const options = indexedSets().length > 1 ? [...sets, [EVERYWHERE, "All SAEs and meta-SAEs"]] : sets;
  const chooseSet = (value) => {
    const chosen = value === EVERYWHERE ? { everywhere: true } : { everywhere: false, cardSet: Number(value) };
    changeSearch({ ...chosen, order: "match", filter: "", opened: null });
    drawSearchForm();
    document.getElementById("card-set").focus();
  };
  const select = makeSelect(options, everywhere ? EVERYWHERE : String(cardSet), chooseSet);
  select.id = "card-set";
  const search = make("input", {
    type: "search",
    id: "search",
    placeholder: "tokens, labels or a number",
    value: query,
    oninput: (event) => changeSearch({ query: event.target.value }),
  });
  const makeBox = (checked, change) =>
    make("input", { type: "checkbox", checked, onchange: (event) => change(event.target.checked) });
  const filters = listFilters(cardSet, everywhere);
  const controls = [
    makeLabelled("SAE", select),
    makeLabelled("Search", search),
    makeLabelled(
      "Order",
      makeSelect(listOrders(cardSet, everywhere), order, (value) => changeSearch({ order: value })),
    ),
    filters.length > 1
      ? makeLabelled(
          "Show",
          makeSelect(filters, filter, (value) => changeSearch({ filter: value })),
        )
      : null,
    makeLabelled(
      "Reversed",
      makeBox(reversed, (value) => changeSearch({ reversed: value })),
      true,
    ),
    makeLabelled(
      "Include never-active",
      makeBox(!activeOnly, (value) => changeSearch({ activeOnly: !value })),
      true,
    ),
    make("button", { type: "button", onclick: openRandomLatent }, "Random latent"),
  ];
  document.getElementById("latent-search").replaceChildren(...controls.filter(Boolean));
}

// What the address has of the search and the pinned card.
function listExplorerChoices() {
  const { cardSet, everywhere, query, order, reversed, filter, activeOnly, pinned } = explorerView;
  const isLinked = parseLink(splitAddress().place)?.cardSet === cardSet; // the link has the card set
  return [
    ...(everywhere ? [["sae", EVERYWHERE]] : []),
    ...(everywhere || cardSet === FIRST_SET || isLinked ? [] : [["sae", cardSets[cardSet].key]]),
    ...(query ? [["latents", query]] : []),
    ...(order === SEARCH_AT_FIRST.order ? [] : [["order", order]]),
    ...(filter ? [["show", filter]] : []),
    ...(reversed ? [["reversed", "yes"]] : []),
    ...(activeOnly ? [] : [["inactive", "yes"]]),
    ...(pinned ? [["beside", linkTo(pinned.cardSet, pinned.latent).slice(1)]] : []),
  ];
}

function restoreExplorerChoices(params) {
  const everywhere = params.get("sae") === EVERYWHERE;
  const named = cardSets.findIndex((cardSet) => cardSet.key === params.get("sae") && cardSet.cards.length);
  const linked = parseLink(splitAddress().place)?.cardSet;
  const cardSet = named >= 0 ? named : (linked ?? FIRST_SET);
  const find = (options, name) => options.find(([value]) => value === params.get(name))?.[0];
  const before = JSON.stringify(listExplorerChoices());
  Object.assign(explorerView, {
    everywhere,
    cardSet,
    query: params.get("latents") ?? "",
    order: find(listOrders(cardSet, everywhere), "order") ?? SEARCH_AT_FIRST.order,
    filter: find(listFilters(cardSet, everywhere), "show") ?? "",
    reversed: params.has("reversed"),
    activeOnly: !params.has("inactive"),
  });
  const pinned = parseLink(params.get("beside") ?? "");
  if (!isSame(pinned, explorerView.pinned)) pinCard(pinned);
  drawSearchForm();
  if (explorerView.drawn && JSON.stringify(listExplorerChoices()) !== before) drawResults();
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
  const pinned = make("article.card", { id: "pinned", "aria-labelledby": "pinned-title", hidden: true });
  const onsubmit = (event) => event.preventDefault();
  body.append(
    make("form.controls", { id: "latent-search", "aria-label": "Search latents", onsubmit }),
    make("div.explorer", {}, makeResultList(), make("div.cards", {}, card, pinned)),
  );
  emptyCard();
  drawSearchForm();
  addFrequencies(body);
  remember(listExplorerChoices, restoreExplorerChoices);
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
