"use strict";
// Search of latents by token, label or number, over one or all card sets, with orders and filters.

const indexedSets = () => cardSets.map((_, number) => number).filter((number) => cardSets[number].index);

// The search index of a card set, with its tokens in lower case; null if it has none.
const indices = new Map();
function loadIndex(cardSet) {
  if (!indices.has(cardSet)) {
    const { index: name } = cardSets[cardSet];
    const loading = name == null ? Promise.resolve(null) : readBlock(name);
    indices.set(
      cardSet,
      loading.then(
        (index) =>
          index && {
            ...index,
            searchable: index.tokens.map((token) => token.trim().toLowerCase()),
            searchableLabels: (index.labels ?? []).map((label) => label && label.toLowerCase()),
          },
      ),
    );
  }
  return indices.get(cardSet);
}

// The orders of a search: [name, title]. `change` and `explained` are of one study of the card set, by its number; where
// several sets are searched, of the first study of each.
function listOrders(cardSet, everywhere) {
  const { stitched, decomposed } = cardSets[cardSet];
  const saes = indexedSets().map((number) => cardSets[number]);
  const changes = everywhere
    ? [["change-0", "Change in MSE"]].filter(() => saes.some((one) => one.stitched.length))
    : stitched.map(([small], at) => [`change-${at}`, `Change in MSE of ${cardSets[small].label}`]);
  const explained = everywhere
    ? [["explained-0", "Explained variance"]].filter(() => saes.some((one) => one.decomposed.length))
    : decomposed.map((meta, at) => [`explained-${at}`, `Explained variance, ${cardSets[meta].label}`]);
  return [["match", "Best match"], ["number", "Number"], ["frequency", "Frequency"], ...changes, ...explained];
}

// The filters of a search: [name, title].
function listFilters(cardSet, everywhere) {
  const [all, novel, known] = [["", "All latents"], "Novel latents", "Reconstruction latents"];
  if (everywhere) {
    const has = indexedSets().some((number) => cardSets[number].stitched.length);
    return has ? [all, ["novel-0", novel], ["reconstruction-0", known]] : [all];
  }
  const studies = cardSets[cardSet].stitched.flatMap(([small, threshold], at) => {
    const suffix = ` (${cardSets[small].label}, threshold ${threshold})`;
    return [
      [`novel-${at}`, novel + suffix],
      [`reconstruction-${at}`, known + suffix],
    ];
  });
  return [all, ...studies];
}

// How well a label matches words: all of them count more than any number of tokens, and each more than a token.
function scoreLabel(label, words) {
  if (!label) return 0;
  const found = words.filter((word) => label.includes(word)).length;
  return 200 * found + (found === words.length ? 1e6 : 0);
}

// How well each latent of an index matches words: labels count more than example tokens, of these such as equal a word
// more than those that contain one, and these more than promoted tokens; Infinity for the number of a latent.
function scoreLatents(index, words) {
  const scores = index.searchable.map((token) =>
    words.includes(token) ? 100 : words.some((word) => token.includes(word)) ? 1 : 0,
  );
  const promotedScores = index.searchable.map((token) => (words.includes(token) ? 10 : 0));
  const numbers = new Set(words.map(Number));
  return index.examples.map((tokens, latent) => {
    if (numbers.has(latent)) return Infinity;
    let score = scoreLabel(index.searchableLabels[latent], words);
    for (const token of tokens) score += scores[token];
    for (const token of index.promoted[latent]) score += promotedScores[token];
    return score;
  });
}

// The values by which an order sorts, one per latent, with the sign that puts the first value first; null for others.
function valuesOfOrder(index, order) {
  const [name, study] = order.split("-");
  if (name === "frequency") return [index.frequency, -1];
  if (name === "change") return [index.change?.[study] ?? [], 1];
  if (name === "explained") return [index.explained?.[study] ?? [], -1];
  return null;
}

// The latents of a card set that match a search, as { cardSet, latent, score, value }, by number.
function searchCardSet(cardSet, index, { query, order, filter, activeOnly }) {
  const words = splitWords(query);
  const scores = words.length ? scoreLatents(index, words) : null;
  const [kind, study] = filter.split("-");
  const novel = kind ? (index.novel?.[study] ?? []) : null;
  const wanted = kind === "novel" ? 1 : 0;
  const [values] = valuesOfOrder(index, order) ?? [[]];
  const found = [];
  for (let latent = 0; latent < index.frequency.length; latent++) {
    if (scores ? !scores[latent] : activeOnly && !(index.frequency[latent] > 0)) continue;
    if (novel && novel[latent] !== wanted) continue;
    found.push({ cardSet, latent, score: scores ? scores[latent] : 0, value: values[latent] ?? null });
  }
  return found;
}

// The latents of the chosen card set, or of all, that match a search, in its order. Missing values come last.
async function searchLatents(search) {
  const sets = search.everywhere ? indexedSets() : [search.cardSet];
  const loaded = await Promise.all(sets.map(loadIndex));
  const found = sets.flatMap((cardSet, at) => (loaded[at] ? searchCardSet(cardSet, loaded[at], search) : []));
  const values = valuesOfOrder({ frequency: [] }, search.order);
  const sign = search.reversed ? -1 : 1;
  const byNumber = (a, b) => sign * (a.latent - b.latent || a.cardSet - b.cardSet);
  if (values)
    found.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      return sign * values[1] * (a.value - b.value);
    });
  else if (search.order === "number" || !splitWords(search.query).length) found.sort(byNumber);
  else found.sort((a, b) => (a.score === b.score ? byNumber(a, b) : sign * (b.score - a.score)));
  return found;
}

const showWhitespace = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "→");

// The text in which a card set's latents were looked for, with its length where that is known.
function describeText(cardSet) {
  const { tokens } = cardSets[cardSet];
  return tokens ? `on ${tokens.toLocaleString("en-US")} held-out tokens` : "in the text read";
}

// The label of a latent, if it has one, and the distinct tokens on which it is most active, at most four.
function describeLatent(cardSet, index, latent) {
  const tokens = [...new Set(index.examples[latent].map((token) => showWhitespace(index.tokens[token]).trim()))];
  const shown = tokens.length ? tokens.slice(0, 4).join(" · ") : `never active ${describeText(cardSet)}`;
  const label = index.labels?.[latent];
  return label ? `“${showWhitespace(label)}”: ${shown}` : shown;
}

// The same with its frequency, the value by which it is ordered, and the promoted tokens if only these match the query.
function describeResult({ cardSet, latent, value }, index, { query, order }) {
  const words = splitWords(query);
  const matching = (tokens) => tokens.filter((token) => words.some((word) => index.searchable[token].includes(word)));
  const promoted = scoreLabel(index.searchableLabels[latent], words) || matching(index.examples[latent]).length
    ? []
    : matching(index.promoted[latent]).map((token) => showWhitespace(index.tokens[token]).trim());
  const frequency = index.frequency[latent] > 0 ? ` (${formatShare(index.frequency[latent])})` : "";
  const suffix = promoted.length ? `; promotes ${[...new Set(promoted)].join(" · ")}` : "";
  const ordered = value !== null && !order.startsWith("frequency") ? `; ${describeValue(order, value)}` : "";
  return describeLatent(cardSet, index, latent) + frequency + suffix + ordered;
}

const describeValue = (order, value) =>
  order.startsWith("change")
    ? `MSE ${value < 0 ? "−" : "+"}${formatNumber(Math.abs(100 * value))}%`
    : `${formatPercent(value)} explained`;
