// Scales and axes, for the two charts.

/** Round numbers from low to high, about as many as asked for. */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.72);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) {
    found.push(Number((place * step).toPrecision(12)));
  }
  return found;
}

/** Powers of ten, and multiples of them where the powers alone are too few. */
function logTicks(low, high) {
  const ratio = high / low;
  const factors = ratio > 300 ? [1] : ratio > 30 ? [1, 3] : ratio > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    factors.forEach((factor) => found.push(factor * 10 ** power));
  }
  return found.filter((value) => value >= low && value <= high);
}

/** A function from values to pixels, with its `ticks`. */
function scale(low, high, from, to, { log = false, wanted = 5 } = {}) {
  const bend = log ? Math.log10 : (value) => value;
  const span = bend(high) - bend(low) || 1;
  const place = (value) => from + ((bend(value) - bend(low)) / span) * (to - from);
  place.ticks = log ? logTicks(low, high) : ticks(low, high, wanted);
  const decimals = (value) => (String(value).split(".")[1] || "").length;
  place.show = (value) => fixed(value, Math.max(...place.ticks.map(decimals)));
  return place;
}

/** The lowest and highest value with a little air, never beyond the limits. */
function extent(values, air = 0.06, limits = [-Infinity, Infinity]) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const margin = high > low ? (high - low) * air : Math.abs(high) * 0.3 || 0.1;
  return [Math.max(limits[0], low - margin), Math.min(limits[1], high + margin)];
}

/** Grid, numbers and titles of both axes. `frame` is {left, top, right, bottom}. */
function axes(frame, x, y, xTitle, yTitle, showX = String, showY = String) {
  const { left, top, right, bottom } = frame;
  const vertical = x.ticks.map((value) => [
    svg("line", { x1: x(value), x2: x(value), y1: top, y2: bottom }),
    svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, showX(value)),
  ]);
  const horizontal = y.ticks.map((value) => [
    svg("line", { x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, showY(value)),
  ]);
  const middle = (left + right) / 2;
  return svg(
    "g",
    { class: "axes", "aria-hidden": "true" },
    vertical,
    horizontal,
    svg("text", { class: "title", x: middle, y: bottom + 40, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "title", x: 2, y: top - 10 }, yTitle),
  );
}

/** How wide a text is as a label of 12 px. */
const textWidth = (() => {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return (text) => pen.measureText(text).width;
})();

const overlap = (one, other) =>
  Math.max(0, Math.min(one.right, other.right) - Math.max(one.left, other.left)) *
  Math.max(0, Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top));

const outside = (box, frame) =>
  Math.max(0, frame.left - box.left) + Math.max(0, box.right - frame.right) +
  Math.max(0, frame.top - box.top) + Math.max(0, box.bottom - frame.bottom);

/**
 * A place for each label beside its point, where it covers least of what is there already.
 * `points` are {x, y, width, height}; returns {left, top, right, bottom} for each.
 */
function placeLabels(points, frame) {
  const dots = points.map(({ x, y }) => ({ left: x - 7, right: x + 7, top: y - 7, bottom: y + 7 }));
  const placed = [];
  points.forEach((point) => {
    let best = null;
    for (const distance of [10, 22, 36, 52]) {
      for (const [across, down] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1]]) {
        const left = point.x + across * distance - (across < 0 ? point.width : across ? 0 : point.width / 2);
        const top = point.y + down * distance - point.height / 2;
        const box = { left, top, right: left + point.width, bottom: top + point.height };
        const covered = [...dots, ...placed].reduce((sum, other) => sum + overlap(box, other), 0);
        const cost = covered * 4 + outside(box, frame) * 200 + distance;
        if (best === null || cost < best.cost) best = { cost, box };
      }
    }
    placed.push(best.box);
  });
  return placed;
}
