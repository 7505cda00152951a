"use strict";
// The ranges of axes: with a margin on both sides, so that nothing lies on the frame.

const MARGIN = 0.1; // of the range of the values, on each side
const MANY_TIMES = 30; // ratio of the largest to the smallest value from which on an axis is logarithmic

// The numbers that the traces and marks of a chart have on an axis, "x" or "y", with the ends of error bars.
function valuesOn(name, traces, shapes) {
  const values = shapes
    .filter((shape) => shape[`${name}ref`] !== "paper")
    .flatMap((shape) => [shape[`${name}0`], shape[`${name}1`]]);
  for (const trace of traces) {
    const errors = trace[`error_${name}`]?.array ?? [];
    for (const [at, value] of (trace[name] ?? []).entries())
      values.push(value, value - (errors[at] ?? 0), value + (errors[at] ?? 0));
  }
  return values.filter((value) => typeof value === "number" && Number.isFinite(value));
}

// The range of an axis of these values; undefined if Plotly chooses it. isBase: whether bars begin on the axis
function rangeWithMargin(values, { type, rangemode }, isBase) {
  const isLog = type === "log";
  const found = isLog ? values.filter((value) => value > 0).map(Math.log10) : [...values];
  if (!found.length || type === "category") return undefined;
  if (isBase || (rangemode === "tozero" && !isLog)) found.push(0); // on a logarithmic axis bars begin at 1
  const [low, high] = [found.reduce((a, b) => Math.min(a, b)), found.reduce((a, b) => Math.max(a, b))];
  const size = Math.max(Math.abs(low), Math.abs(high));
  const span = high - low > 1e-9 * size ? high - low : isLog ? 1 : size || 1;
  return [isBase && low === 0 && !isLog ? 0 : low - MARGIN * span, high + MARGIN * span];
}

const isSpreadOut = (values) => {
  const positive = values.filter((value) => value > 0);
  return positive.length === values.length && Math.max(...values) > MANY_TIMES * Math.min(...values);
};

// The layout with a range for each axis that has none.
function withRanges(layout, traces) {
  const hasBars = traces.some((trace) => trace.type === "bar");
  const complete = (name) => {
    const axis = layout[`${name}axis`] ?? {};
    if (axis.range || (hasBars && name === "x")) return axis;
    const range = rangeWithMargin(valuesOn(name, traces, layout.shapes ?? []), axis, hasBars && name === "y");
    return range ? { ...axis, range } : axis;
  };
  return { ...layout, xaxis: complete("x"), yaxis: complete("y") };
}
