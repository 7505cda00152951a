"use strict";
// The table of families of similar latents whose swap alone changes a small SAE's error most.

// A share in per cent with two digits: most families change the error by far less than one per cent.
const formatSmallPercent = (value) => (value == null ? "–" : `${Number((100 * value).toPrecision(2))}%`);

function makeSwapsTable(study) {
  const rows = study.swaps.map((swap) => [
    makeMembers(study.sweep, study.small.point, swap.small),
    makeMembers(study.sweep, study.large.point, swap.large),
    makeNumberCell(formatSmallPercent(swap.change), swap.change),
    makeNumberCell(formatSmallPercent(swap.frequency), swap.frequency),
  ]);
  const titles = [
    "Latents of the small SAE taken out",
    "Latents of the large SAE put in",
    makeExplained("Change in MSE", "of the small SAE, by this swap alone; a share of its MSE. Below 0 the swap helps."),
    makeExplained("Active", "share of held-out activations on which one of these latents is active"),
  ];
  const table = fillTable(make("table.families", { "data-study": study.key }), titles, rows, 2);
  const share = study.metrics.swaps_lowering_share;
  const text =
    `Families whose swap alone changes the error most, of ${formatCount(study.metrics.swaps_active)} that are ever active; ` +
    `${formatPercent(share)} of these lower it. All are in families.parquet.`;
  return [make("p", {}, text), makeTableBox("Families swapped alone", table)];
}

// A cell with the first latents of one side of a family, each with its strongest contexts and a link to its card.
function makeMembers(sweep, folder, { latents, listed }) {
  const at = findCards(sweep, folder);
  const items = listed.map(({ latent, contexts }) => {
    const name = at < 0 ? `latent ${latent}` : make("a", { href: linkTo(at, latent) }, `latent ${latent}`);
    return make("li", {}, name, contexts.length ? `: ${contexts.join("; ")}` : "");
  });
  if (latents > listed.length) items.push(make("li", {}, `and ${latents - listed.length} more`));
  return make("td", {}, make("ul", {}, ...items));
}
