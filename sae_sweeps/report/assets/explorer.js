"use strict";
// The explorer: search for latents by token or number, a list of what is found, and links of the form #/SAE/latent.

const MOST_FOUND = 60;
const shelves = report.explorer?.shelves ?? [];
const explorerView = {
  shelf: shelves.findIndex((shelf) => shelf.index),
  query: "",
  latent: null,
  order: "number",
  active: true,
  most: MOST_FOUND,
};

const linkTo = (shelf, latent) => `#/${encodeURIComponent(shelves[shelf].key)}/${latent}`;
const noun = (shelf) => (shelves[shelf].of == null ? "latent" : "meta-latent");

// The shelf and latent that a link names, or null.
function linked(hash) {
  const found = /^#\/(.+)\/(\d+)$/.exec(hash);
  if (!found) return null;
  let key = found[1];
  try {
    key = decodeURIComponent(key);
  } catch {}
  const shelf = shelves.findIndex((one) => one.key === key);
  const latent = Number(found[2]);
  return shelf >= 0 && latent < shelves[shelf].count ? { shelf, latent } : null;
}

// The index of a shelf with the tokens as they are searched.
const indices = new Map();
function indexOf(shelf) {
  if (!indices.has(shelf)) {
    const loading = shelves[shelf].index == null ? Promise.resolve(null) : block(shelves[shelf].index);
    indices.set(
      shelf,
      loading.then((index) => index && { ...index, plain: index.tokens.map((token) => token.trim().toLowerCase()) }),
    );
  }
  return indices.get(shelf);
}

// Latents by how many of their examples' tokens are one of the words searched, then contain one, then by what they raise;
// without words all of them in the order that is chosen.
function search(index, { query, order, active }) {
  const words = wordsOf(query);
  if (!words.length) {
    const all = index.frequency.map((_, latent) => latent).filter((latent) => !active || index.frequency[latent] > 0);
    return order === "number" ? all : all.sort((a, b) => index.frequency[b] - index.frequency[a]);
  }
  const worth = index.plain.map((token) =>
    words.includes(token) ? 100 : words.some((word) => token.includes(word)) ? 1 : 0,
  );
  const exact = index.plain.map((token) => (words.includes(token) ? 1 : 0));
  const found = [];
  for (let latent = 0; latent < index.examples.length; latent++) {
    let score = 0;
    for (const token of index.examples[latent]) score += worth[token];
    for (const token of index.promoted[latent]) score += 10 * exact[token];
    if (score) found.push([latent, score]);
  }
  found.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const number = words
    .map(Number)
    .filter((word) => Number.isInteger(word) && word >= 0 && word < index.examples.length);
  return [...new Set([...number, ...found.map(([latent]) => latent)])];
}

// What a latent is about in a few words: the tokens on which it is most active, each once.
function gloss(index, latent) {
  const tokens = [...new Set(index.examples[latent].map((token) => visible(index.tokens[token]).trim()))];
  return tokens.length ? tokens.slice(0, 4).join(" · ") : "active nowhere in the text that was read";
}

// The same, with how often it is active; and of what was searched the tokens that it only raises.
function summary(index, latent, query) {
  const words = wordsOf(query);
  const has = (tokens) => tokens.filter((token) => words.some((word) => index.plain[token].includes(word)));
  const raised = has(index.examples[latent]).length
    ? []
    : has(index.promoted[latent]).map((token) => visible(index.tokens[token]).trim());
  const often = index.frequency[latent] > 0 ? ` (${percentage(index.frequency[latent])})` : "";
  return gloss(index, latent) + often + (raised.length ? `; raises ${[...new Set(raised)].join(" · ")}` : "");
}

const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "→");

let searches = 0;
async function drawFound() {
  const mine = ++searches;
  const { shelf, query, most } = explorerView;
  const index = await indexOf(shelf);
  if (mine !== searches) return;
  const found = index ? search(index, explorerView) : [];
  const items = found.slice(0, most).map((latent) =>
    make(
      "li",
      {},
      make(
        "a",
        {
          href: linkTo(shelf, latent),
          "aria-current": explorerView.latent === latent ? "true" : null,
          "data-latent": latent,
        },
        `${noun(shelf)} ${latent}`,
        make("small", {}, summary(index, latent, query)),
      ),
    ),
  );
  document.getElementById("found").replaceChildren(...items);
  const all = shelves[shelf].count;
  document.getElementById("found-said").textContent = !index
    ? "It is not known what these mean."
    : !query.trim()
      ? `${items.length} of ${count(found.length, noun(shelf))}` +
        (found.length < all
          ? `; ${(all - found.length).toLocaleString("en-US")} are active nowhere in the text that was read.`
          : ".")
      : found.length > items.length
        ? `The best ${items.length} of ${count(found.length, noun(shelf))}.`
        : `${count(found.length, noun(shelf))} of ${all.toLocaleString("en-US")}.`;
  document.getElementById("more").hidden = items.length === found.length;
  if (explorerView.latent === null && found.length) drawCard(shelf, found[0]);
}

// Draw the list anew from its beginning.
function searchAnew(change) {
  Object.assign(explorerView, { most: MOST_FOUND }, change);
  drawFound();
}

async function follow() {
  const target = linked(location.hash);
  if (!target) return;
  const moved = explorerView.shelf !== target.shelf;
  Object.assign(explorerView, target);
  document.getElementById("shelf").value = String(target.shelf);
  for (const link of document.querySelectorAll("#found a")) {
    if (!moved && Number(link.dataset.latent) === target.latent) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  await Promise.all([drawCard(target.shelf, target.latent), moved ? drawFound() : null]);
  document.getElementById("card-title").focus({ preventScroll: true });
  const card = document.getElementById("card");
  const { top, bottom } = card.getBoundingClientRect();
  if (top < 0 || top > innerHeight - 120 || bottom < 0) card.scrollIntoView({ block: "start" });
}

function addExplorer() {
  const body = document.getElementById("explorer-body");
  const name = report.sweeps[0];
  if (!report.explorer) {
    body.append(
      make(
        "p.note",
        {},
        "It is not known yet what the latents mean: ",
        make("code", {}, `python launch.py task=latents name=${name}`),
        " reads them off held-out text.",
      ),
    );
    return;
  }
  for (const line of remarks()) body.append(make("p.note", {}, line));
  const options = shelves
    .map((shelf, number) => [String(number), shelf.label, shelf])
    .filter(([, , shelf]) => shelf.cards.length);
  const select = choice(options, String(explorerView.shelf), (value) => {
    searchAnew({ shelf: Number(value), latent: null });
  });
  select.id = "shelf";
  const find = make("input", {
    type: "search",
    id: "search",
    placeholder: "tokens, or a number",
    oninput: (event) => searchAnew({ query: event.target.value }),
  });
  const lucky = make(
    "button",
    {
      type: "button",
      onclick: async () => {
        const { shelf } = explorerView;
        const index = await indexOf(shelf);
        const all = Array.from({ length: shelves[shelf].count }, (_, latent) => latent);
        const some = index ? all.filter((latent) => index.frequency[latent] > 0) : all;
        if (some.length) location.hash = linkTo(shelf, some[Math.floor(Math.random() * some.length)]);
      },
    },
    "a random one",
  );
  const order = choice(
    [
      ["number", "number"],
      ["frequency", "how often active"],
    ],
    "number",
    (value) => searchAnew({ order: value }),
  );
  const idle = make("input", { type: "checkbox", onchange: (event) => searchAnew({ active: !event.target.checked }) });
  const form = make(
    "form.controls",
    { "aria-label": "Search latents", onsubmit: (event) => event.preventDefault() },
    labelled("SAE", select),
    labelled("search", find),
    labelled("order", order),
    labelled("never active too", idle, true),
    lucky,
  );
  const found = make(
    "div",
    {},
    make("p.note", { id: "found-said", role: "status" }),
    make("ul.results", { id: "found", tabindex: 0, "aria-label": "Latents that were found" }),
    make(
      "button",
      {
        type: "button",
        id: "more",
        hidden: true,
        onclick: () => {
          explorerView.most += MOST_FOUND;
          drawFound();
        },
      },
      "show more",
    ),
  );
  const card = make(
    "article.card",
    { id: "card", "aria-labelledby": "card-title" },
    make("h3", { id: "card-title", tabindex: -1 }, "No latent chosen"),
    make("p.note", {}, "Search for a token, or choose a latent from the list. Every card has a link of its own."),
  );
  body.append(form, make("div.explorer", {}, found, card));
  addEventListener("hashchange", follow);
  // The index is large: it is unpacked when the explorer comes near, or a link asks for it.
  const near = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      drawFound();
    },
    { rootMargin: "600px" },
  );
  near.observe(body);
  follow();
}

// What the explorer lacks, and why.
function remarks() {
  const { left_out, slow, unread } = report.explorer;
  const labels = (some) => some.map((shelf) => shelf.label).join("; ");
  const untold = labels(shelves.filter((shelf) => !shelf.told && shelf.cards.length));
  const cut = labels(shelves.filter((shelf) => !shelf.cards.length));
  const said = [];
  if (untold)
    said.push(`It is not known what the latents of these mean (task=latents), only which are near: ${untold}.`);
  if (cut) said.push(`Without cards, for the size of this page (explorer_mib): ${cut}.`);
  if (left_out.length) said.push(`Without cards, which a page has of a dozen SAEs: ${left_out.join("; ")}.`);
  if (slow.length) said.push(`Not compared with all others, which would have taken long: ${slow.join("; ")}.`);
  if (unread.length) said.push(`Not compared with others, for their files cannot be read: ${unread.join("; ")}.`);
  return said;
}
