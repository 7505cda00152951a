"use strict";
// The card of a latent or a meta-latent.

let cardsDrawn = 0;
async function drawCard(shelf, latent) {
  const mine = ++cardsDrawn;
  const name = shelves[shelf].cards[Math.floor(latent / report.explorer.per_block)];
  const data = name == null ? {} : (await block(name))[latent % report.explorer.per_block];
  const quotes = await Promise.all((data.e ?? []).map(([, number]) => quote(number)));
  if (mine !== cardsDrawn) return;
  const title = make("h3", { id: "card-title", tabindex: -1 }, `${noun(shelf)} ${latent}`);
  const link = make("a", { href: linkTo(shelf, latent), "aria-label": `Link to this ${noun(shelf)}` }, "#");
  title.append(" ", link);
  const parts = [title, make("p.note", {}, `of ${shelves[shelf].label}`), ...facts(shelf, data)];
  if (data.e?.length) parts.push(part("Where it is most active"), examples(data, quotes));
  if (data.p?.length)
    parts.push(
      part("Output tokens that it raises most"),
      make(
        "ul.tokens",
        {},
        ...data.p.map(([token, logit]) => make("li", {}, visible(token), make("small", {}, ` ${logit.toFixed(1)}`))),
      ),
    );
  for (const [meta, explained, weights] of data.d ?? []) {
    parts.push(
      part(
        `Its meta-latents: ${(100 * explained).toFixed(1)}% of its direction, with ${shelves[meta].label}` +
          (shelves[meta].shuffled == null
            ? ""
            : ` (of shuffled directions ${(100 * shelves[meta].shuffled).toFixed(1)}% on average)`),
      ),
      weighted(weights.map(([at, weight]) => [meta, at, weight])),
    );
  }
  if (data.l)
    parts.push(
      part(`Latents that use it most, of ${data.u.toLocaleString("en-US")}`),
      weighted(data.l.map(([at, weight]) => [shelves[shelf].of, at, weight])),
    );
  if (data.m?.length) parts.push(part("Nearest latents in smaller SAEs, by cosine"), weighted(data.m));
  const nearest = [...(data.n ?? [])].sort((a, b) => b[2] - a[2]);
  const [twins, others] = [
    nearest.filter((one) => startAlike(shelf, latent, one)),
    nearest.filter((one) => !startAlike(shelf, latent, one)),
  ];
  if (others.length) parts.push(part("Nearest latents in the other SAEs, by cosine"), weighted(others));
  if (twins.length)
    parts.push(
      part("Nearest, but with the same direction at the start of training"),
      make("p.note", {}, "SAEs of one size and seed start alike; that these are near says little of what was learnt."),
      weighted(twins),
    );
  document.getElementById("card").replaceChildren(...parts);
}

// Whether another SAE's latent began with the same direction: SAEs of one size and seed do.
function startAlike(shelf, latent, [other, its]) {
  const [a, b] = [shelf, other].map((number) => report.points.find((point) => point.key === shelves[number].key));
  return latent === its && a && b && a.dict_size === b.dict_size && a.seed === b.seed;
}

const part = (text) => make("h4", {}, text);

function facts(shelf, data) {
  const said = [];
  if (!shelves[shelf].cards.length) said.push("This page has no cards of these, for its size.");
  else if (!shelves[shelf].told) said.push("It is not known what the latents of this SAE mean (task=latents).");
  else if (!data.f) said.push("Active nowhere in the text that was read.");
  else
    said.push(
      `Active on ${percentage(data.f)} of activations${shelves[shelf].of == null ? "" : " (one of the latents that use it is)"}; where it is, ${data.a[0]} on average and ${data.a[1]} at most.`,
    );
  for (const [small, novel, change, threshold] of data.s ?? []) {
    said.push(
      `Beside ${shelves[small].label} it is ${novel ? "novel" : "a reconstruction latent"} (threshold ${threshold}); put in alone, it ${change < 0 ? "lowers" : "raises"} that one's MSE by ${brief(Math.abs(100 * change))}%.`,
    );
  }
  return said.map((text) => make("p", {}, text));
}

const percentage = (share) =>
  share >= 0.0995 ? `${(100 * share).toFixed(0)}%` : `${Number((100 * share).toPrecision(2))}%`;

// Before, token and after of an example.
async function quote(number) {
  const { quotes, quotes_per_block } = report.explorer;
  return (await block(quotes[Math.floor(number / quotes_per_block)]))[number % quotes_per_block];
}

function examples(data, quotes) {
  const items = data.e.map(([activation], at) => {
    const [before, token, after] = quotes[at].map(visible);
    const word = token.trimStart(); // the space before a word belongs to its token, but need not be marked
    const parts = word
      ? [before + token.slice(0, token.length - word.length), make("mark", {}, word)]
      : [before, make("mark", {}, token)];
    return make("li", {}, make("span.value", {}, activation.toFixed(2)), make("q", {}, "…", ...parts, after, "…"));
  });
  return make("ol.examples", { "aria-label": "Examples, with the activation" }, ...items);
}

// Links to latents with a number each, [shelf, latent, number], and in a few words what they are about.
function weighted(entries) {
  const most = Math.max(...entries.map(([, , value]) => Math.abs(value)));
  const items = entries.map(([shelf, latent, value]) => {
    const about = make("small");
    indexOf(shelf).then((index) => index && (about.textContent = gloss(index, latent)));
    const where = shelves[shelf].of == null ? `latent ${latent} of ${shelves[shelf].label}` : `meta-latent ${latent}`;
    const target = shelves[shelf].cards.length ? make("a", { href: linkTo(shelf, latent) }, where) : where;
    return make(
      "li",
      {},
      make("span.value", {}, value.toFixed(3), make("span.bar", { style: `width:${(100 * Math.abs(value)) / most}%` })),
      make("div", {}, target, about),
    );
  });
  return make("ul.weights", {}, ...items);
}
