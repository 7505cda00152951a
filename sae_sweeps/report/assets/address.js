"use strict";
// The page's address: the section or card that is open, and what the reader chose, as #PLACE?NAME=VALUE&NAME=VALUE. A
// copied address shows the same; what is not in it is as at first.

const REWRITE_MILLISECONDS = 200; // browsers limit how often a page may change its address
const remembered = []; // parts of the page with choices: { list, restore }

// list: () => [[name, value], ...] of the choices that differ from those at first; restore: takes URLSearchParams
const remember = (list, restore) => remembered.push({ list, restore });

// The place of an address, without "#", and its choices as text; null if it has none.
function splitAddress() {
  const [place, ...query] = location.hash.slice(1).split("?");
  return { place, query: query.length ? query.join("?") : null };
}

let rewriting = null;
let followed = location.hash; // the address that the page shows; another one waits for its event
function updateAddress() {
  clearTimeout(rewriting);
  rewriting = setTimeout(rewriteAddress, REWRITE_MILLISECONDS);
}

function rewriteAddress() {
  rewriting = null;
  if (location.hash !== followed) return;
  const { place, query } = splitAddress();
  const chosen = new URLSearchParams(remembered.flatMap(({ list }) => list())).toString();
  if (chosen === (query ?? "")) return;
  const hash = place || chosen ? `#${place}${chosen ? `?${chosen}` : ""}` : location.pathname;
  history.replaceState(history.state, "", hash);
  followed = location.hash;
}

function restoreChoices() {
  const { query } = splitAddress();
  if (query === null) return;
  for (const { restore } of remembered) restore(new URLSearchParams(query));
}

// Restore what the address has. Links inside the page name only a place: with them the choices stay.
function followAddress() {
  followed = location.hash;
  const { place, query } = splitAddress();
  if (query === null) return updateAddress();
  restoreChoices();
  document.getElementById(place)?.scrollIntoView();
}

// The choices in the table of points.
function listPointChoices() {
  return [
    ...(view.text ? [["search", view.text]] : []),
    ...Object.entries(view.fields),
    ...(view.grouped === hasSeeds ? [] : [["seeds", "separate"]]),
    ...(view.baseline === defaultBaseline() ? [] : [["baseline", view.baseline ?? ""]]),
    ...(view.sort === DEFAULT_SORT ? [] : [["sort", view.sort]]),
    ...(view.descending ? [["descending", "yes"]] : []),
    ...(view.withoutFailed ? [["failed", "hidden"]] : []),
    ...[...view.selected].map((key) => ["point", key]),
  ];
}

const DEFAULT_SORT = view.sort;
const hasSeeds = view.grouped;
const defaultBaseline = () => rows.find((row) => row.mean.nmse != null)?.label ?? null;

function restorePointChoices(params) {
  const isKnown = (field, value) => report.points.some((point) => String(point[field]) === value);
  view.text = params.get("search") ?? "";
  const fields = Object.keys(FIELD_TITLES).map((field) => [field, params.get(field)]);
  view.fields = Object.fromEntries(fields.filter(([field, value]) => isKnown(field, value)));
  view.grouped = hasSeeds && params.get("seeds") !== "separate";
  view.withoutFailed = params.get("failed") === "hidden";
  drawDismissal();
  rows = buildRows();
  const baseline = params.get("baseline");
  const isRow = rows.some((row) => row.label === baseline && row.mean.nmse != null);
  view.baseline = baseline === "" ? null : isRow ? baseline : defaultBaseline();
  view.sort = COLUMNS.find((column) => column.name === params.get("sort"))?.name ?? DEFAULT_SORT;
  view.descending = params.has("descending");
  view.selected = new Set(params.getAll("point").filter((key) => isKnown("key", key)));
}
