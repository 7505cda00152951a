"use strict";
// The explorer: search for latents by token or number, a list of what is found, and links of the form #/SAE/latent.

const MOST_FOUND = 60;
const shelves = report.explorer?.shelves ?? [];
const explorerView = { shelf: shelves.findIndex((shelf) => shelf.index), query: "", latent: null };

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
    indices.set(shelf, loading.then((index) => index && { ...index, plain: index.tokens.map((token) => token.trim().toLowerCase()) }));
  }
  return indices.get(shelf);
}

// Latents by how many of their examples' tokens are what is searched, then contain it, then by what they raise.
function search(index, query) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return index.frequency.map((_, latent) => latent).slice(0, MOST_FOUND);
  const worth = index.plain.map((token) => (token === wanted ? 100 : token.includes(wanted) ? 1 : 0));
  const exact = index.plain.map((token) => (token === wanted ? 1 : 0));
  const found = [];
  for (let latent = 0; latent < index.examples.length; latent++) {
    let score = 0;
    for (const token of index.examples[latent]) score += worth[token];
    for (const token of index.promoted[latent]) score += 10 * exact[token];
    if (score) found.push([latent, score]);
  }
  found.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const number = /^\d+$/.test(wanted) && Number(wanted) < index.examples.length ? [Number(wanted)] : [];
  return [...new Set([...number, ...found.map(([latent]) => latent)])];
}

// What a latent is about in a few words: the tokens on which it is most active, each once.
function gloss(index, latent) {
  const tokens = [...new Set(index.examples[latent].map((token) => visible(index.tokens[token]).trim()))];
  return tokens.length ? tokens.slice(0, 4).join(" · ") : "active nowhere in the text that was read";
}

const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "→");

let searches = 0;
async function drawFound() {
  const mine = ++searches;
  const { shelf, query } = explorerView;
  const index = await indexOf(shelf);
  if (mine !== searches) return;
  const found = index ? search(index, query) : [];
  const items = found.slice(0, MOST_FOUND).map((latent) => make("li", {}, make("a", {
    href: linkTo(shelf, latent), "aria-current": explorerView.latent === latent ? "true" : null, "data-latent": latent,
  }, `${noun(shelf)} ${latent}`, make("small", {}, gloss(index, latent)))));
  document.getElementById("found").replaceChildren(...items);
  const all = shelves[shelf].count;
  document.getElementById("found-said").textContent = !index ? "It is not known what these mean."
    : !query.trim() ? `The first ${items.length} of ${count(all, noun(shelf))}.`
    : found.length > items.length ? `The best ${items.length} of ${count(found.length, noun(shelf))}.`
    : `${count(found.length, noun(shelf))} of ${all.toLocaleString("en-US")}.`;
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
  await Promise.all([drawCard(target.shelf, target.latent), moved && shelves[target.shelf].index ? drawFound() : null]);
  document.getElementById("card-title").focus({ preventScroll: true });
  const card = document.getElementById("card");
  const { top, bottom } = card.getBoundingClientRect();
  if (top < 0 || top > innerHeight - 120 || bottom < 0) card.scrollIntoView({ block: "start" });
}

function addExplorer() {
  const body = document.getElementById("explorer-body");
  const name = report.sweeps[0];
  if (!report.explorer) {
    body.append(make("p.note", {}, "It is not known yet what the latents mean: ", make("code", {}, `python launch.py task=latents name=${name}`), " reads them off held-out text."));
    return;
  }
  for (const line of remarks()) body.append(make("p.note", {}, line));
  const options = shelves.map((shelf, number) => [String(number), shelf.label, shelf]).filter(([, , shelf]) => shelf.index);
  const select = choice(options, String(explorerView.shelf), (value) => {
    Object.assign(explorerView, { shelf: Number(value), latent: null });
    drawFound();
  });
  select.id = "shelf";
  const find = make("input", { type: "search", id: "search", placeholder: "a token, or a latent's number", oninput: (event) => {
    explorerView.query = event.target.value;
    drawFound();
  } });
  const lucky = make("button", { type: "button", onclick: () => {
    location.hash = linkTo(explorerView.shelf, Math.floor(Math.random() * shelves[explorerView.shelf].count));
  } }, "a random one");
  const form = make("form.controls", { "aria-label": "Search latents", onsubmit: (event) => event.preventDefault() }, labelled("of", select), labelled("search", find), lucky);
  const found = make("div", {}, make("p.note", { id: "found-said", role: "status" }), make("ul.results", { id: "found", tabindex: 0, "aria-label": "Latents that were found" }));
  const card = make("article.card", { id: "card", "aria-labelledby": "card-title" }, make("h3", { id: "card-title", tabindex: -1 }, "No latent chosen"),
    make("p.note", {}, "Search for a token, or choose a latent from the list. Every card has a link of its own."));
  body.append(form, make("div.explorer", {}, found, card));
  addEventListener("hashchange", follow);
  // The index is large: it is unpacked when the explorer comes near, or a link asks for it.
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    drawFound();
  }, { rootMargin: "600px" });
  near.observe(body);
  follow();
}

function remarks() {
  const { left_out, not_compared } = report.explorer;
  const untold = shelves.filter((shelf) => !shelf.told && shelf.cards.length).map((shelf) => shelf.label);
  const cut = shelves.filter((shelf) => !shelf.cards.length).map((shelf) => shelf.label);
  const said = [];
  if (untold.length) said.push(`Of ${untold.join("; ")} it is known which latents are near, not what they mean: python launch.py task=latents name=${report.sweeps[0]}`);
  if (left_out.length || cut.length) said.push(`Without cards, for the size of this page (explorer_mib): ${[...left_out, ...cut].join("; ")}.`);
  if (not_compared.length) said.push(`Not compared with all others, which would have taken long: ${not_compared.join("; ")}.`);
  return said;
}
